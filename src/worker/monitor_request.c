/*-------------------------------------------------------------------------
 *
 * monitor_request.c
 *	  What a monitor may answer without asking the database.
 *
 *	  Browsers are the danger: a page from anywhere can make one send requests
 *	  to a loopback address, and a name that leads to ours today may have been
 *	  somebody else's.  So the request must name us by an address or by a name
 *	  that the setting lists, a page must be ours, and an action needs a token,
 *	  which no browser sends by itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>

#include "worker/monitor_request.h"

#include "base/clock.h"
#include "base/config.h"
#include "mb/pg_wchar.h"
#include "queue/secret_file.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "worker/monitor_page.h"

#define ACTIONS "/api/actions/"
#define MIN_TOKEN_LENGTH 16
#define MAX_HOST_LENGTH 255
#define REPEAT_MS 60000			/* between two logs of wrong tokens */

static bool is_safe_origin(const JqHttpCall *call, const JqMonitorEntry *entry,
						   JqHttpAnswer *answer);
static bool is_our_host(const char *host, const JqMonitorEntry *entry);
static bool is_our_page(const JqHttpCall *call);
static bool has_known_method(const JqHttpCall *call, bool is_action,
							 JqHttpAnswer *answer);
static bool may_act(const JqHttpCall *call, JqHttpAnswer *answer);
static void note_wrong_token(const char *client);
static bool is_json(const char *content_type);
static const char *bearer_token(const char *authorization);
static const char *check_token(const char *token, bool *is_right);
static bool is_long_enough(const JqSecret *secret);
static bool is_same(const char *token, const char *secret);
static void answer_page(JqHttpAnswer *answer);

bool
jq_monitor_judge(const JqHttpCall *call, const JqMonitorEntry *entry,
				 JqMonitorRequest *request, JqHttpAnswer *answer)
{
	memset(request, 0, sizeof(*request));
	memset(answer, 0, sizeof(*answer));
	if (call->is_ambiguous ||
		!jq_http_target_read(call->target, &request->target))
	{
		jq_monitor_answer_error(answer, 400, "malformed request", NULL, NULL);
		return false;
	}
	if (!is_safe_origin(call, entry, answer))
		return false;
	request->is_action = strncmp(request->target.path, ACTIONS,
								 strlen(ACTIONS)) == 0;
	if (!has_known_method(call, request->is_action, answer))
		return false;
	if (call->is_large)
	{
		jq_monitor_answer_error(answer, 413, "the request is too large",
								NULL, NULL);
		return false;
	}
	if (request->is_action)
		return may_act(call, answer);
	if (strcmp(request->target.path, "/") == 0)
	{
		answer_page(answer);
		return false;
	}
	return true;
}

static bool
is_safe_origin(const JqHttpCall *call, const JqMonitorEntry *entry,
			   JqHttpAnswer *answer)
{
	if (!is_our_host(call->host, entry))
	{
		jq_monitor_answer_error(answer, 403,
								"this name is not one of the monitor's",
								"Use its address, or add host=NAME to its entry in jobqueue.monitor.",
								NULL);
		return false;
	}
	if (!is_our_page(call))
	{
		jq_monitor_answer_error(answer, 403,
								"requests from other sites are not answered",
								NULL, NULL);
		return false;
	}
	return true;
}

/*
 * Only an old client sends no Host, and no browser does.  An address is as
 * good as a name of ours: no name server had a say in it.
 */
static bool
is_our_host(const char *host, const JqMonitorEntry *entry)
{
	char		name[MAX_HOST_LENGTH + 1];
	unsigned char address[16];
	char	   *port;
	ListCell   *cell;

	if (host == NULL)
		return true;
	if (strlen(host) > MAX_HOST_LENGTH)
		return false;
	strlcpy(name, host, sizeof(name));
	if (name[0] == '[')
	{
		char	   *end = strchr(name, ']');

		if (end == NULL || (end[1] != '\0' && end[1] != ':'))
			return false;
		*end = '\0';
		return inet_pton(AF_INET6, name + 1, address) == 1;
	}
	port = strchr(name, ':');
	if (port != NULL)
		*port = '\0';
	if (inet_pton(AF_INET, name, address) == 1 ||
		pg_strcasecmp(name, "localhost") == 0)
		return true;
	foreach(cell, entry->hosts)
		if (pg_strcasecmp(name, (char *) lfirst(cell)) == 0)
		return true;
	return false;
}

/*
 * Whether a browser that says where the request comes from says that it is a
 * page of ours, or its user, who may follow a link to us.
 */
static bool
is_our_page(const JqHttpCall *call)
{
	const char *origin = call->origin;

	if (call->fetch_site != NULL &&
		strcmp(call->fetch_site, "same-origin") != 0 &&
		strcmp(call->fetch_site, "none") != 0 &&
		(call->fetch_mode == NULL ||
		 strcmp(call->fetch_mode, "navigate") != 0))
		return false;
	if (origin == NULL)
		return true;
	if (strncmp(origin, "http://", 7) == 0)
		origin += 7;
	else if (strncmp(origin, "https://", 8) == 0)
		origin += 8;
	else
		return false;
	return call->host != NULL && pg_strcasecmp(origin, call->host) == 0;
}

static bool
has_known_method(const JqHttpCall *call, bool is_action, JqHttpAnswer *answer)
{
	if (is_action ? strcmp(call->method, "POST") == 0 :
		strcmp(call->method, "GET") == 0 ||
		strcmp(call->method, "HEAD") == 0)
		return true;
	jq_monitor_answer_error(answer, 405, "this method is not allowed here",
							NULL, NULL);
	answer->allow = is_action ? "POST" : "GET, HEAD";
	return false;
}

static bool
may_act(const JqHttpCall *call, JqHttpAnswer *answer)
{
	const char *problem;
	bool		is_right = false;

	if (jq_config_monitor_token_file[0] == '\0')
	{
		jq_monitor_answer_error(answer, 403, "actions are switched off",
								"Set jobqueue.monitor_token_file to switch them on.",
								NULL);
		return false;
	}
	problem = check_token(bearer_token(call->authorization), &is_right);
	if (problem != NULL)
	{
		jq_monitor_answer_error(answer, 503,
								"actions are switched off, because the file of the token cannot be used",
								"The log of the server says why.", NULL);
		return false;
	}
	if (!is_right)
	{
		jq_monitor_answer_error(answer, 401, "an action needs the token",
								"It is in the file that jobqueue.monitor_token_file names.",
								NULL);
		answer->wants_token = true;
		if (call->authorization != NULL)
			note_wrong_token(call->client);
		return false;
	}
	if (!is_json(call->content_type))
	{
		jq_monitor_answer_error(answer, 415,
								"the content type must be application/json",
								NULL, NULL);
		return false;
	}
	return true;
}

/* At most once a minute: whoever guesses must not fill the log. */
static void
note_wrong_token(const char *client)
{
	static int64 silent_until = 0;

	if (jq_clock_ms() < silent_until || !jq_config_logs(WARNING))
		return;
	silent_until = jq_clock_ms() + REPEAT_MS;
	ereport(WARNING,
			(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
			 errmsg("jobqueue monitor refused an action of %s, whose token is wrong",
					client)));
}

static bool
is_json(const char *content_type)
{
	size_t		length = strlen("application/json");

	return content_type != NULL &&
		pg_strncasecmp(content_type, "application/json", length) == 0 &&
		(content_type[length] == '\0' || content_type[length] == ';' ||
		 content_type[length] == ' ');
}

/* NULL: there is none. */
static const char *
bearer_token(const char *authorization)
{
	if (authorization == NULL ||
		pg_strncasecmp(authorization, "Bearer ", 7) != 0)
		return NULL;
	authorization += 7;
	while (*authorization == ' ')
		authorization++;
	return authorization;
}

/*
 * Compares a token with that of the file, which is read when it has changed.
 * Returns what is wrong with the file, which is logged once, or NULL.
 */
static const char *
check_token(const char *token, bool *is_right)
{
	static JqSecretFile file = {0};
	static JqSecret secret = {0};
	static char known_path[MAXPGPATH] = "";
	static char known_problem[256] = "";
	const char *path = jq_config_monitor_token_file;
	const char *problem;

	if (strcmp(path, known_path) != 0)
	{
		file.is_read = false;
		strlcpy(known_path, path, sizeof(known_path));
	}
	problem = jq_secret_file_read(path, &file, &secret, TopMemoryContext);
	if (problem == NULL && !is_long_enough(&secret))
		problem = psprintf("must have at least %d bytes in each line",
						   MIN_TOKEN_LENGTH);
	if (problem == NULL)
	{
		known_problem[0] = '\0';
		*is_right = token != NULL &&
			(is_same(token, secret.value) ||
			 (secret.previous != NULL && is_same(token, secret.previous)));
		return NULL;
	}
	if (strncmp(problem, known_problem, sizeof(known_problem) - 1) != 0)
	{
		strlcpy(known_problem, problem, sizeof(known_problem));
		if (jq_config_logs(WARNING))
			ereport(WARNING,
					(errmsg("jobqueue monitor refuses actions: file \"%s\" %s",
							path, problem),
					 errhint("It must be a file of the server's user that nobody else can read, with the token in its first line.")));
	}
	return problem;
}

/* Both tokens can be guessed at. */
static bool
is_long_enough(const JqSecret *secret)
{
	return strlen(secret->value) >= MIN_TOKEN_LENGTH &&
		(secret->previous == NULL ||
		 strlen(secret->previous) >= MIN_TOKEN_LENGTH);
}

/* Takes as long for a token that is nearly right as for one that is not. */
static bool
is_same(const char *token, const char *secret)
{
	size_t		length = strlen(secret);
	volatile unsigned char difference = strlen(token) != length;

	if (difference == 0)
		for (size_t i = 0; i < length; i++)
			difference |= (unsigned char) (token[i] ^ secret[i]);
	return difference == 0;
}

static void
answer_page(JqHttpAnswer *answer)
{
	const JqMonitorPage *page = jq_monitor_page();

	if (page->text == NULL)
	{
		jq_monitor_answer_error(answer, 404, "the dashboard is not installed",
								NULL, NULL);
		return;
	}
	answer->status = 200;
	answer->content_type = "text/html; charset=utf-8";
	answer->body = page->text;
	answer->body_size = page->size;
	answer->policy = page->policy;
}

void
jq_monitor_answer_error(JqHttpAnswer *answer, int status, const char *message,
						const char *hint, const char *code)
{
	StringInfoData string;

	initStringInfo(&string);
	appendStringInfoString(&string, "{\"error\": ");
	escape_json(&string, message);
	if (hint != NULL)
	{
		appendStringInfoString(&string, ", \"hint\": ");
		escape_json(&string, hint);
	}
	if (code != NULL)
	{
		appendStringInfoString(&string, ", \"code\": ");
		escape_json(&string, code);
	}
	appendStringInfoString(&string, "}\n");

	memset(answer, 0, sizeof(*answer));
	answer->status = status;
	answer->content_type = "application/json; charset=utf-8";
	answer->body = string.data;
	answer->body_size = string.len;

	answer->policy = JQ_MONITOR_POLICY;
}
