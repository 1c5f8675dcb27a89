/*
 * server_probe.h - what a server is, as it says itself: what comes of the questions is told to servers.c, which has
 * them asked.
 */
#ifndef M1_PROXY_SERVER_PROBE_H
#define M1_PROXY_SERVER_PROBE_H

#include "proxy/servers.h"

/* Words, digits, spaces, breaks and letters of several scripts: other tokenizers give other ids for some of it. */
#define M1_SAMPLE_TEXT                                                                                              \
	"SELECT 1234567 AS n;  -- it's na\303\257ve\n\n\tDatenbank\303\244hnlich \346\225\260\346\215\256\345\272\223 " \
	"\320\277\321\200\320\270\320\262\320\265\321\202!"

/* Asks it. Ends in m1_server_came_up, m1_server_reject or m1_server_failed. */
void m1_server_probe(m1_server *server);

#endif
