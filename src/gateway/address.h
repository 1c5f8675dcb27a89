/*
 * address.h - addresses of sockets, as the command line has them.
 */
#ifndef M1_GATEWAY_ADDRESS_H
#define M1_GATEWAY_ADDRESS_H

#include <event2/util.h>
#include <stdbool.h>
#include <sys/socket.h>

/* ADDRESS:PORT; *length is what there is room for, and what it took. false where it is none. */
bool gw_address_read(const char *text, struct sockaddr_storage *address, int *length);

bool gw_address_is_loopback(const struct sockaddr *address);

/* Where a socket listens; 0 where it does not. */
int gw_address_port_of(evutil_socket_t fd);

#endif
