/*
 * main.c - minimax_m1_gateway: which face to show. The only file of the room that ends the process.
 */
#include <signal.h>
#include <stdio.h>

#include "gateway/mcp.h"
#include "gateway/oauth.h"

static int
complain(const m1_error *err)
{
	fprintf(stderr, "minimax_m1_gateway: %s\n", err->message);
	if (err->detail[0] != '\0')
		fprintf(stderr, "  %s\n", err->detail);
	if (err->hint[0] != '\0')
		fprintf(stderr, "  %s\n", err->hint);
	return 2;
}

/* With poll: epoll takes no regular file, which stdin may be. */
static struct event_base *
make_loop(bool http)
{
	struct event_config *config = event_config_new();
	struct event_base *base = NULL;

	if (config != NULL)
	{
		if (!http)
			event_config_avoid_method(config, "epoll");
		base = event_base_new_with_config(config);
		event_config_free(config);
	}
	return base;
}

static void
on_signal(evutil_socket_t number, short what, void *context)
{
	(void) number;
	(void) what;
	event_base_loopbreak(context);
}

static int
serve(gw_gateway *gateway)
{
	struct event *term = evsignal_new(gateway->base, SIGTERM, on_signal, gateway->base);
	struct event *interrupt = evsignal_new(gateway->base, SIGINT, on_signal, gateway->base);
	int status = 1;

	if (term != NULL && interrupt != NULL)
	{
		evsignal_add(term, NULL);
		evsignal_add(interrupt, NULL);
		status = gateway->options.http ? gw_http_serve(gateway) : gw_stdio_serve(gateway);
	}
	event_free(term);
	event_free(interrupt);
	return status;
}

int
main(int argc, char **argv)
{
	gw_gateway gateway = {.base = NULL};
	m1_error err;
	bool help;
	int status;

	if (gw_options_read(argc, argv, &gateway.options, &help, &err) != M1_OK)
		return complain(&err);
	if (help)
	{
		gw_options_print();
		return 0;
	}
	if (gw_mcp_check_options(&gateway.options, &err) != M1_OK)
		return complain(&err);
	if (gateway.options.auth == GW_AUTH_OAUTH && gw_oauth_begin(&err) != M1_OK)
		return complain(&err);
	signal(SIGPIPE, SIG_IGN);
	gateway.base = make_loop(gateway.options.http);
	if (gateway.base == NULL)
	{
		m1_fail(&err, M1_E_NO_MEMORY, "out of memory");
		return complain(&err);
	}
	if (gw_pool_open(gateway.base, &gateway.options.pool, &gateway.pool, &err) != M1_OK)
		return complain(&err);
	status = serve(&gateway);
	gw_pool_close(gateway.pool);
	event_base_free(gateway.base);
	return status;
}
