/*
 * http.h - what answers requests of HTTP, path by path, and how it refuses.
 *
 * Each handler answers its exchange, now or later; who asks is in x->login by then.
 */
#ifndef M1_GATEWAY_HTTP_H
#define M1_GATEWAY_HTTP_H

#include "gateway/http_server.h"

/* What /health knows. NULL is fine. */
typedef struct gw_health gw_health;
void gw_health_free(gw_health *health);

void gw_mcp_handle(gw_http_exchange *x);
void gw_chat_handle(gw_http_exchange *x);
void gw_models_handle(gw_http_exchange *x);
void gw_tokenize_handle(gw_http_exchange *x);
void gw_detokenize_handle(gw_http_exchange *x);
void gw_metrics_handle(gw_http_exchange *x);
void gw_health_handle(gw_http_exchange *x);
void gw_page_handle(gw_http_exchange *x);
void gw_oauth_handle(gw_http_exchange *x);

/* An error as OpenAI's clients read it. code may be NULL. */
void gw_http_fail(gw_http_exchange *x, int status, const char *type, const char *code, const char *message);
/* The answer is 401: how to come back. Before it begins. */
void gw_http_ask_login(gw_http_exchange *x);

#endif
