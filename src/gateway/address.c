/* address.c - see address.h. */
#define _DEFAULT_SOURCE
#include "gateway/address.h"

#include <netinet/in.h>
#include <string.h>

bool
gw_address_is_loopback(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *) (const void *) address)->sin_addr.s_addr) >> 24 == 127;
	return address->sa_family == AF_INET6 &&
		   IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *) (const void *) address)->sin6_addr);
}

/* Port 0, which libevent does not read, is any that is free. */
bool
gw_address_read(const char *text, struct sockaddr_storage *address, int *length)
{
	const size_t n = strlen(text);
	char with_port[128];

	if (n < 3 || n >= sizeof with_port || strchr(text, ':') == NULL)
		return false;
	memcpy(with_port, text, n + 1);
	if (strcmp(text + n - 2, ":0") == 0)
		with_port[n - 1] = '1';
	if (evutil_parse_sockaddr_port(with_port, (struct sockaddr *) address, length) != 0)
		return false;
	if (strcmp(text, with_port) == 0)
		return true;
	if (address->ss_family == AF_INET6)
		((struct sockaddr_in6 *) address)->sin6_port = 0;
	else
		((struct sockaddr_in *) address)->sin_port = 0;
	return true;
}

int
gw_address_port_of(evutil_socket_t fd)
{
	struct sockaddr_storage address;
	socklen_t length = sizeof address;

	if (getsockname(fd, (struct sockaddr *) &address, &length) != 0)
		return 0;
	return ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *) &address)->sin6_port
											   : ((struct sockaddr_in *) &address)->sin_port);
}
