/*-------------------------------------------------------------------------
 *
 * allow_list.c
 *	  The lists of hosts, addresses and ports that requests may go to.
 *
 *	  What is not public is closed by default: whoever may enqueue a request
 *	  must not reach, through the server, what only the server can reach.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>

#include "base/allow_list.h"

/* longest name of a host, and longest of its labels, in bytes */
#define HOST_MAX_LENGTH 253
#define LABEL_MAX_LENGTH 63

#define PORT_MAX 65535

/* characters of names, and of addresses of the other family */
#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"
#define NAME_CHARACTERS LETTERS DIGITS "-_."

/* Bytes of an IPv6 address in front of the IPv4 address inside of it. */
static const unsigned char v4_mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* What is not public; of IPv6, what is not public in 2000::/3. */
static const JqNetwork closed[] = {
	{AF_INET, 8, {0}},			/* this network */
	{AF_INET, 8, {10}},			/* private */
	{AF_INET, 10, {100, 64}},	/* carriers' NAT */
	{AF_INET, 8, {127}},		/* loopback */
	{AF_INET, 16, {169, 254}},	/* link-local, metadata of clouds */
	{AF_INET, 12, {172, 16}},	/* private */
	{AF_INET, 24, {192, 0, 0}}, /* protocol assignments */
	{AF_INET, 24, {192, 0, 2}}, /* documentation */
	{AF_INET, 16, {192, 168}},	/* private */
	{AF_INET, 15, {198, 18}},	/* benchmarks */
	{AF_INET, 24, {198, 51, 100}},	/* documentation */
	{AF_INET, 24, {203, 0, 113}},	/* documentation */
	{AF_INET, 3, {224}},		/* multicast, reserved, broadcast */
	{AF_INET6, 23, {0x20, 0x01}},	/* Teredo and other protocols */
	{AF_INET6, 32, {0x20, 0x01, 0x0d, 0xb8}},	/* documentation */
	{AF_INET6, 16, {0x20, 0x02}},	/* 6to4, which has an IPv4 address inside */
	{AF_INET6, 20, {0x3f, 0xff}},	/* documentation */
};

/*
 * All other IPv6 addresses are closed: unspecified, loopback, translated to
 * IPv4 (64:ff9b::/96), unique local, link-local, site-local, multicast.
 */
static const JqNetwork global_unicast = {AF_INET6, 3, {0x20}};

static char *next_item(const char **list);
static const char *host_item_flaw(const char *item);
static const char *name_flaw(const char *name, const char *item);
static bool ends_in_number(const char *name);
static bool parse_address(const char *string, JqNetwork *address);
static const char *parse_network(const char *string, JqNetwork *network);
static const char *parse_ports(const char *string, int *first, int *last);
static bool parse_number(const char *string, size_t len, int max, int *number);
static bool host_item_matches(const char *item, const char *host, size_t len);
static bool contains(const JqNetwork *network, int family,
					 const unsigned char *address);
static bool list_contains(const JqAddressList *list, int family,
						  const unsigned char *address);
static bool is_public(int family, const unsigned char *address);

const char *
jq_host_list_flaw(const char *list)
{
	const char *rest = list;
	char	   *item;

	if (list[strspn(list, " \t")] == '\0')
		return NULL;
	while ((item = next_item(&rest)) != NULL)
	{
		const char *flaw = host_item_flaw(item);

		if (flaw != NULL)
			return flaw;
	}
	return NULL;
}

const char *
jq_address_list_flaw(const char *list)
{
	const char *rest = list;
	char	   *item;

	if (list[strspn(list, " \t")] == '\0')
		return NULL;
	while ((item = next_item(&rest)) != NULL)
	{
		JqNetwork	network;
		const char *flaw = parse_network(item, &network);

		if (flaw != NULL)
			return flaw;
	}
	return NULL;
}

const char *
jq_port_list_flaw(const char *list)
{
	const char *rest = list;
	char	   *item;

	if (list[strspn(list, " \t")] == '\0')
		return "The list is empty; \"*\" stands for every port.";
	while ((item = next_item(&rest)) != NULL)
	{
		int			first;
		int			last;
		const char *flaw = parse_ports(item, &first, &last);

		if (flaw != NULL)
			return flaw;
	}
	return NULL;
}

const char *
jq_proxy_flaw(const char *url)
{
	const char *host;
	size_t		len;
	const char *port;
	char	   *name;
	JqNetwork	address;
	int			number;

	if (pg_strncasecmp(url, "http://", 7) == 0)
		host = url + 7;
	else if (pg_strncasecmp(url, "https://", 8) == 0)
		host = url + 8;
	else
		return "It must begin with \"http://\" or \"https://\".";
	if (strchr(host, '@') != NULL)
		return "It must not have a user name or password: settings are written to the log.";

	if (*host == '[')
	{
		len = strcspn(host, "]");
		if (host[len] == '\0')
			return "An IPv6 address must be in brackets.";
		name = pnstrdup(host + 1, len - 1);
		if (!parse_address(name, &address) || address.family != AF_INET6)
			return "What is in brackets must be an IPv6 address.";
		port = host + len + 1;
	}
	else
	{
		len = strcspn(host, ":/?#");
		name = pnstrdup(host, len);
		if (name_flaw(name, name) != NULL && !parse_address(name, &address))
			return "Its host must be a name or an IP address.";
		port = host + len;
	}

	len = strcspn(port, "/");
	if (len > 0 &&
		(*port != ':' || !parse_number(port + 1, len - 1, PORT_MAX, &number) ||
		 number == 0))
		return "Its port must be a number between 1 and 65535.";
	if (port[len] != '\0' && strcmp(port + len, "/") != 0)
		return "It must end after the port.";
	return NULL;
}

bool
jq_host_list_has(const char *list, const char *host)
{
	size_t		len = strlen(host);
	const char *rest = list;
	char	   *item;

	if (list[strspn(list, " \t")] == '\0')
		return true;
	if (len > 0 && host[len - 1] == '.')
		len--;
	while ((item = next_item(&rest)) != NULL)
		if (host_item_matches(item, host, len))
			return true;
	return false;
}

bool
jq_port_list_has(const char *list, int port)
{
	const char *rest = list;
	char	   *item;
	int			first;
	int			last;

	while ((item = next_item(&rest)) != NULL)
		if (parse_ports(item, &first, &last) == NULL &&
			first <= port && port <= last)
			return true;
	return false;
}

JqAddressList *
jq_address_list_compile(const char *list)
{
	int			capacity = 1;
	JqAddressList *result;
	char	   *item;

	for (const char *c = list; *c != '\0'; c++)
		if (*c == ',')
			capacity++;
	result = palloc0(offsetof(JqAddressList, networks) +
					 capacity * sizeof(JqNetwork));
	if (jq_address_list_flaw(list) != NULL)
		return result;
	while ((item = next_item(&list)) != NULL)
		if (parse_network(item, &result->networks[result->count]) == NULL)
			result->count++;
	return result;
}

bool
jq_address_is_allowed(const JqAddressList *list,
					  const struct sockaddr *address)
{
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	const unsigned char *bytes;

	if (address->sa_family == AF_INET)
	{
		memcpy(&v4, address, sizeof(v4));
		bytes = (const unsigned char *) &v4.sin_addr;
		return is_public(AF_INET, bytes) || list_contains(list, AF_INET, bytes);
	}
	if (address->sa_family != AF_INET6)
		return false;

	memcpy(&v6, address, sizeof(v6));
	bytes = (const unsigned char *) &v6.sin6_addr;
	if (list_contains(list, AF_INET6, bytes))
		return true;
	if (memcmp(bytes, v4_mapped, sizeof(v4_mapped)) == 0)
	{
		bytes += sizeof(v4_mapped);
		return is_public(AF_INET, bytes) || list_contains(list, AF_INET, bytes);
	}
	return is_public(AF_INET6, bytes);
}

/* The next item of a list without the space around it; NULL at the end. */
static char *
next_item(const char **list)
{
	const char *start = *list;
	const char *end;

	if (start == NULL)
		return NULL;
	end = strchr(start, ',');
	*list = end == NULL ? NULL : end + 1;
	if (end == NULL)
		end = start + strlen(start);
	while (start < end && isspace((unsigned char) *start))
		start++;
	while (start < end && isspace((unsigned char) end[-1]))
		end--;
	return pnstrdup(start, end - start);
}

static const char *
host_item_flaw(const char *item)
{
	const char *name = strncmp(item, "*.", 2) == 0 ? item + 2 : item;
	JqNetwork	address;

	if (strcmp(item, "*") == 0 || parse_address(item, &address))
		return NULL;
	return name_flaw(name, item);
}

/* What is wrong with the name of a host, in an item; NULL when nothing is. */
static const char *
name_flaw(const char *name, const char *item)
{
	size_t		label = 0;

	if (*name == '\0')
		return "The list has an empty item.";
	if (strchr(name, '*') != NULL)
		return psprintf("\"%s\" has a \"*\" that does not stand alone or in front of a \".\".",
						item);
	if (strchr(name, '[') != NULL)
		return psprintf("\"%s\" must be listed without brackets.",
						item);
	if (name[strspn(name, NAME_CHARACTERS)] != '\0')
		return psprintf("\"%s\" is no host: names are letters, digits, \"-\", \"_\" and \".\", without port, others in punycode.",
						item);
	if (strlen(name) > HOST_MAX_LENGTH)
		return psprintf("\"%s\" is longer than 253 bytes.",
						item);
	for (const char *c = name;; c++)
	{
		if (*c != '.' && *c != '\0')
			label++;
		else if (label == 0 || label > LABEL_MAX_LENGTH)
			return psprintf("\"%s\" must have 1 to 63 bytes between its dots.",
							item);
		else
			label = 0;
		if (*c == '\0')
			break;
	}

	/* Such a host is another spelling of an address, and never tested. */
	if (ends_in_number(name))
		return psprintf("\"%s\" is no IP address in its usual form.",
						item);
	return NULL;
}

/* Whether the last label is a number as inet_aton() reads them. */
static bool
ends_in_number(const char *name)
{
	const char *label = strrchr(name, '.');

	label = label == NULL ? name : label + 1;
	if (pg_strncasecmp(label, "0x", 2) == 0)
		return label[2 + strspn(label + 2, DIGITS "abcdefABCDEF")] == '\0';
	return label[strspn(label, DIGITS)] == '\0';
}

/* A single address, all bits of which count. */
static bool
parse_address(const char *string, JqNetwork *address)
{
	memset(address, 0, sizeof(*address));
	if (inet_pton(AF_INET, string, address->address) == 1)
	{
		address->family = AF_INET;
		address->bits = 32;
		return true;
	}
	if (inet_pton(AF_INET6, string, address->address) == 1)
	{
		address->family = AF_INET6;
		address->bits = 128;
		return true;
	}
	return false;
}

/* Reads a network, or returns what is wrong with it. */
static const char *
parse_network(const char *string, JqNetwork *network)
{
	size_t		len = strcspn(string, "/");
	int			max;

	if (*string == '\0')
		return "The list has an empty item.";
	if (!parse_address(pnstrdup(string, len), network))
		return psprintf("\"%s\" is no network, like 10.1.0.0/16 or fd00::/8, and no IP address.",
						string);
	max = network->bits;
	if (string[len] == '/' &&
		!parse_number(string + len + 1, strlen(string + len + 1), max,
					  &network->bits))
		return psprintf("The prefix of \"%s\" must be a number between 0 and %d.",
						string, max);
	for (int bit = network->bits; bit < max; bit++)
		if (network->address[bit / 8] & (0x80 >> bit % 8))
			return psprintf("\"%s\" has bits set to the right of its prefix.",
							string);
	return NULL;
}

/* Reads a port, a range of ports or *, or returns what is wrong with it. */
static const char *
parse_ports(const char *string, int *first, int *last)
{
	size_t		len = strcspn(string, "-");
	const char *end = string[len] == '-' ? string + len + 1 : string;

	*first = 1;
	*last = PORT_MAX;
	if (strcmp(string, "*") == 0)
		return NULL;
	if (*string == '\0')
		return "The list has an empty item.";
	if (!parse_number(string, len, PORT_MAX, first) || *first == 0 ||
		!parse_number(end, strlen(end), PORT_MAX, last) || *last == 0)
		return psprintf("\"%s\" is no port between 1 and 65535, and no range of them, like 8000-8100.",
						string);
	if (*first > *last)
		return psprintf("The range \"%s\" ends before it begins.", string);
	return NULL;
}

/* Decimal digits and nothing else. */
static bool
parse_number(const char *string, size_t len, int max, int *number)
{
	if (len == 0 || len > 5 || strspn(string, DIGITS) < len)
		return false;
	*number = 0;
	for (size_t i = 0; i < len; i++)
		*number = *number * 10 + (string[i] - '0');
	return *number <= max;
}

static bool
host_item_matches(const char *item, const char *host, size_t len)
{
	const char *suffix = item + 1;
	size_t		suffix_len = strlen(suffix);
	JqNetwork	listed;
	JqNetwork	tested;

	if (strcmp(item, "*") == 0)
		return true;
	if (parse_address(pnstrdup(host, len), &tested))
		return parse_address(item, &listed) &&
			memcmp(&listed, &tested, sizeof(listed)) == 0;
	if (strncmp(item, "*.", 2) == 0)
		return len > suffix_len &&
			pg_strncasecmp(host + len - suffix_len, suffix, suffix_len) == 0;
	return strlen(item) == len && pg_strncasecmp(item, host, len) == 0;
}

static bool
contains(const JqNetwork *network, int family, const unsigned char *address)
{
	int			bytes = network->bits / 8;
	int			bits = network->bits % 8;

	if (network->family != family ||
		memcmp(network->address, address, bytes) != 0)
		return false;
	return bits == 0 ||
		(network->address[bytes] ^ address[bytes]) >> (8 - bits) == 0;
}

static bool
list_contains(const JqAddressList *list, int family,
			  const unsigned char *address)
{
	for (int i = 0; i < list->count; i++)
		if (contains(&list->networks[i], family, address))
			return true;
	return false;
}

static bool
is_public(int family, const unsigned char *address)
{
	if (family == AF_INET6 && !contains(&global_unicast, family, address))
		return false;
	for (size_t i = 0; i < lengthof(closed); i++)
		if (contains(&closed[i], family, address))
			return false;
	return true;
}
