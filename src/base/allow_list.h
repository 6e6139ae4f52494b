/*-------------------------------------------------------------------------
 *
 * allow_list.h
 *	  The lists of hosts, addresses and ports that requests may go to.
 *
 *	  Hosts: empty or *, every host; else comma-separated names, each exact or
 *	  *.suffix.  A suffix stands for the names below it, at any depth, and not
 *	  for itself.  Case and one trailing dot of the tested host do not count.
 *	  IPv6 addresses are listed without brackets.
 *
 *	  Addresses: comma-separated networks like 10.1.0.0/16 or fd00::/8, or
 *	  single addresses, which are allowed besides the public ones.
 *
 *	  Ports: *, every port; else comma-separated numbers and ranges, 8000-8100.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_ALLOW_LIST_H
#define JQ_ALLOW_LIST_H

#include "postgres.h"

#include <sys/socket.h>

/* One network of a list. */
typedef struct JqNetwork
{
	int			family;			/* AF_INET or AF_INET6 */
	int			bits;			/* that count, from the first */
	unsigned char address[16];	/* of which IPv4 uses the first 4 */
} JqNetwork;

/* A list of addresses, ready to be asked. */
typedef struct JqAddressList
{
	int			count;
	JqNetwork	networks[FLEXIBLE_ARRAY_MEMBER];
} JqAddressList;

/*
 * What is wrong with a list, as a sentence, palloc'd; NULL when nothing is.
 * They raise no error (other than out of memory), for check hooks of settings.
 */
extern const char *jq_host_list_flaw(const char *list);
extern const char *jq_address_list_flaw(const char *list);
extern const char *jq_port_list_flaw(const char *list);

/*
 * The same of the URL of a proxy: http:// or https://, a host, a port or none,
 * and nothing else, least of all a password.  Quotes nothing of it.
 */
extern const char *jq_proxy_flaw(const char *url);

/* Whether a list has the host, which is a name or an address, or the port. */
extern bool jq_host_list_has(const char *list, const char *host);
extern bool jq_port_list_has(const char *list, int port);

/*
 * The compiled form, allocated in the current memory context.  The list has
 * passed jq_address_list_flaw(); of one that has not, nothing is allowed.
 */
extern JqAddressList *jq_address_list_compile(const char *list);

/*
 * Whether requests may go to this numeric address: it is public, or in the
 * list.  IPv4 addresses inside IPv6 ones are judged as what they are.  Safe in
 * callbacks of foreign libraries: no allocation, no error, no log, no lock.
 */
extern bool jq_address_is_allowed(const JqAddressList *list,
								  const struct sockaddr *address);

#endif							/* JQ_ALLOW_LIST_H */
