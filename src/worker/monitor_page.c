/*-------------------------------------------------------------------------
 *
 * monitor_page.c
 *	  The page of the dashboard, as it is installed.
 *
 *	  It is one file that asks for nothing but what the monitor answers, and
 *	  the browser is told so: it runs the scripts that stand in the file, by
 *	  their digests, and no other; so none that the name of a job would bring
 *	  along.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "worker/monitor_page.h"

#include "common/base64.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#define FILE_NAME "extension/jobqueue-dashboard.html"
#define MAX_SIZE (4 * 1024 * 1024)
#define DIGEST_ROOM 64			/* of a SHA-256 in base64, with some to spare */

static MemoryContext page_context = NULL;
static JqMonitorPage page = {0};

static void read_file(JqMonitorPage *new);
static char *make_policy(const char *html);
static void add_digest(StringInfo policy, const char *script, size_t size);

void
jq_monitor_page_read(void *arg)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "jobqueue dashboard",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	JqMonitorPage new = {0};

	read_file(&new);
	if (new.text !=NULL)
		new.policy = make_policy(new.text);
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(context, TopMemoryContext);
	if (page_context != NULL)
		MemoryContextDelete(page_context);
	page_context = context;
	page = new;
}

const JqMonitorPage *
jq_monitor_page(void)
{
	return &page;
}

static void
read_file(JqMonitorPage *new)
{
	char		share[MAXPGPATH];
	char		path[MAXPGPATH];
	struct stat status;
	FILE	   *file;

	get_share_path(my_exec_path, share);
	snprintf(path, sizeof(path), "%s/%s", share, FILE_NAME);
	file = AllocateFile(path, PG_BINARY_R);
	if (file == NULL && errno == ENOENT)
		return;
	if (file == NULL || fstat(fileno(file), &status) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", path)));
	if (status.st_size > MAX_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("file \"%s\" is too large", path)));
	new->text = palloc(status.st_size + 1);
	new->size = fread(new->text, 1, status.st_size, file);
	if (ferror(file))
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read file \"%s\": %m", path)));
	new->text[new->size] = '\0';
	FreeFile(file);
}

/* Styles may stand where they like: they cannot send anything anywhere. */
static char *
make_policy(const char *html)
{
	StringInfoData policy;
	const char *script = html;
	bool		has_scripts = false;

	initStringInfo(&policy);
	appendStringInfoString(&policy, "default-src 'none'; script-src");
	while ((script = strstr(script, "<script")) != NULL)
	{
		const char *begin = strchr(script, '>');
		const char *end = begin == NULL ? NULL : strstr(begin, "</script>");

		if (end == NULL)
			break;
		add_digest(&policy, begin + 1, end - begin - 1);
		has_scripts = true;
		script = end;
	}
	if (!has_scripts)
		appendStringInfoString(&policy, " 'none'");
	appendStringInfoString(&policy,
						   "; style-src 'unsafe-inline'; img-src data:; "
						   "connect-src 'self'; base-uri 'none'; "
						   "form-action 'none'; frame-ancestors 'none'");
	return policy.data;
}

static void
add_digest(StringInfo policy, const char *script, size_t size)
{
	pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA256);
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	char		encoded[DIGEST_ROOM];
	int			length;

	if (hash == NULL || pg_cryptohash_init(hash) < 0 ||
		pg_cryptohash_update(hash, (const uint8 *) script, size) < 0 ||
		pg_cryptohash_final(hash, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not compute a digest");
	pg_cryptohash_free(hash);
	length = pg_b64_encode((const void *) digest, sizeof(digest),
						   encoded, sizeof(encoded));
	if (length < 0)
		elog(ERROR, "could not encode a digest");
	appendStringInfo(policy, " 'sha256-%.*s'", length, encoded);
}
