/*-------------------------------------------------------------------------
 *
 * url.c
 *	  URLs of requests: what they must be, and where they may go.
 *
 *	  Two parsers that disagree about where the host of a URL ends are a hole
 *	  in every list of hosts: so there is one, that of the library that sends.
 *	  What it would repair or guess is refused before.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>

#include "http/url.h"

#include "base/allow_list.h"
#include "base/config.h"

#if LIBCURL_VERSION_NUM < 0x075700
#error "jobqueue needs libcurl 7.87.0 or later"
#endif

/* The parts as libcurl gives them, copied without an allocation that can fail. */
typedef struct RawParts
{
	char		host[300];		/* any valid one, also in brackets */
	char		port[8];
} RawParts;

static const char *check_bytes(const char *url);
static CURLUcode read_raw(CURLU *handle, const char *url, RawParts *raw);
static CURLUcode copy_part(CURLU *handle, CURLUPart part, unsigned int flags,
						   char *buffer, size_t size);
static const char *explain(CURLUcode code);
static const char *read_host(const char *host, JqUrl *parts);
static bool is_localhost(const char *host);
static bool is_allowed_address(const JqAddressList *list, const char *host);

const char *
jq_url_parse(const char *url, JqUrl *parts)
{
	const char *flaw = check_bytes(url);
	JqUrl		scratch;
	RawParts	raw;
	CURLU	   *handle;
	CURLUcode	code;

	if (flaw != NULL)
		return flaw;
	handle = curl_url();
	code = handle == NULL ? CURLUE_OUT_OF_MEMORY : read_raw(handle, url, &raw);
	curl_url_cleanup(handle);
	if (code == CURLUE_OUT_OF_MEMORY)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	if (code != CURLUE_OK)
		return explain(code);

	if (parts == NULL)
		parts = &scratch;
	memset(parts, 0, sizeof(*parts));
	parts->scheme = pg_strncasecmp(url, "https:", 6) == 0 ? "https" : "http";
	parts->port = atoi(raw.port);
	if (parts->port < 1 || parts->port > 65535)
		return explain(CURLUE_BAD_PORT_NUMBER);
	flaw = read_host(raw.host, parts);
	if (flaw != NULL)
		return flaw;
	parts->origin = psprintf(strchr(parts->host, ':') != NULL ?
							 "%s://[%s]:%d" : "%s://%s:%d",
							 parts->scheme, parts->host, parts->port);
	return NULL;
}

const char *
jq_url_policy(const JqUrl *parts)
{
	JqAddressList *list;

	if (!jq_host_list_has(jq_config_http_allow_hosts, parts->host))
		return "The host is not in \"jobqueue.http_allow_hosts\".";
	if (!jq_port_list_has(jq_config_http_allow_ports, parts->port))
		return "The port is not in \"jobqueue.http_allow_ports\".";

	/* libcurl knows the addresses of localhost without asking anyone. */
	list = jq_address_list_compile(jq_config_http_allow_cidrs);
	if (is_localhost(parts->host) ? !is_allowed_address(list, "127.0.0.1") &&
		!is_allowed_address(list, "::1") :
		parts->is_literal_address && !is_allowed_address(list, parts->host))
		return "The address is not public, and not in \"jobqueue.http_allow_cidrs\".";
	return NULL;
}

/* What no URL may have in it: the parser would let some of it pass. */
static const char *
check_bytes(const char *url)
{
	size_t		len = strlen(url);
	const char *authority;

	if (len == 0)
		return "The URL is empty.";
	if (len > JQ_URL_MAX_LENGTH)
		return "The URL is longer than 8192 bytes.";
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) url[i];

		if (c <= ' ' || c == 0x7f)
			return "The URL has spaces or control characters, which must be percent-encoded.";
		if (c >= 0x80)
			return "The URL has characters outside ASCII: a host must be in punycode, the rest percent-encoded.";
		if (c == '\\')
			return "The URL has a backslash, which must be percent-encoded.";
		if (c == '#')
			return "The URL has a fragment, which is not sent, or a \"#\" that must be percent-encoded.";
	}
	if (pg_strncasecmp(url, "http://", 7) != 0 &&
		pg_strncasecmp(url, "https://", 8) != 0)
		return "The URL must begin with \"http://\" or \"https://\".";

	/* libcurl would skip a third slash, and decode a host. */
	authority = strstr(url, "://") + 3;
	len = strcspn(authority, "/?");
	if (len == 0)
		return explain(CURLUE_NO_HOST);
	if (memchr(authority, '@', len) != NULL)
		return explain(CURLUE_USER_NOT_ALLOWED);
	if (memchr(authority, '%', len) != NULL)
		return explain(CURLUE_BAD_HOSTNAME);
	return NULL;
}

/* Takes apart what passed the above.  Raises no error. */
static CURLUcode
read_raw(CURLU *handle, const char *url, RawParts *raw)
{
	CURLUcode	code;

	code = curl_url_set(handle, CURLUPART_URL, url, CURLU_DISALLOW_USER);
	if (code == CURLUE_OK)
		code = copy_part(handle, CURLUPART_PORT, CURLU_DEFAULT_PORT,
						 raw->port, sizeof(raw->port));
	if (code == CURLUE_OK)
		code = copy_part(handle, CURLUPART_HOST, 0,
						 raw->host, sizeof(raw->host));
	return code;
}

static CURLUcode
copy_part(CURLU *handle, CURLUPart part, unsigned int flags,
		  char *buffer, size_t size)
{
	char	   *value = NULL;
	CURLUcode	code = curl_url_get(handle, part, &value, flags);

	if (code != CURLUE_OK)
		return code;
	if (strlcpy(buffer, value, size) >= size)
		code = part == CURLUPART_HOST ? CURLUE_BAD_HOSTNAME : CURLUE_BAD_PORT_NUMBER;
	curl_free(value);
	return code;
}

static const char *
explain(CURLUcode code)
{
	switch (code)
	{
		case CURLUE_USER_NOT_ALLOWED:
			return "The URL has a user name or password: use a header with a secret.";
		case CURLUE_BAD_PORT_NUMBER:
			return "The port of the URL must be a number between 1 and 65535.";
		case CURLUE_NO_HOST:
			return "The URL has no host.";
		case CURLUE_BAD_HOSTNAME:
		case CURLUE_BAD_IPV6:
			return "The host of the URL is neither a name nor an IP address.";
		default:
			return "It is not a URL.";
	}
}

/*
 * The host as it is compared.  libcurl has brought addresses to their usual
 * form: whatever else ends in a number is a spelling that it did not know, and
 * that a resolver might.
 */
static const char *
read_host(const char *host, JqUrl *parts)
{
	size_t		len = strlen(host);
	unsigned char address[16];

	if (len > 2 && *host == '[')
	{
		parts->host = pnstrdup(host + 1, len - 2);
		parts->is_literal_address = true;
		return inet_pton(AF_INET6, parts->host, address) == 1 ? NULL :
			explain(CURLUE_BAD_IPV6);
	}
	if (len > 0 && host[len - 1] == '.')
		len--;
	parts->host = pnstrdup(host, len);
	for (char *c = parts->host; *c != '\0'; c++)
		*c = pg_ascii_tolower((unsigned char) *c);
	if (len == 0 || strpbrk(parts->host, "*,") != NULL ||
		jq_host_list_flaw(parts->host) != NULL)
		return explain(CURLUE_BAD_HOSTNAME);
	parts->is_literal_address = inet_pton(AF_INET, parts->host, address) == 1;
	return NULL;
}

static bool
is_localhost(const char *host)
{
	size_t		len = strlen(host);

	return strcmp(host, "localhost") == 0 ||
		(len > 10 && strcmp(host + len - 10, ".localhost") == 0);
}

static bool
is_allowed_address(const JqAddressList *list, const char *host)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};

	if (inet_pton(AF_INET, host, &v4.sin_addr) == 1)
		return jq_address_is_allowed(list, (const struct sockaddr *) &v4);
	if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1)
		return jq_address_is_allowed(list, (const struct sockaddr *) &v6);
	return false;
}
