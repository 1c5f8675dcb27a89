/*
 * call.c - see call.h.
 *
 * Proxies of the environment are not used, redirects are not followed, and nothing but http and https is spoken: a
 * request holds users' texts, and goes where the settings say, or nowhere.
 */
#define _GNU_SOURCE /* explicit_bzero, strcasestr */
#include "proxy/call.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/key_file.h"

#define CONNECT_SECONDS 10
#define MAX_REFUSAL ((size_t) 64 << 10) /* bytes that are kept of what an error says */

struct m1_calls
{
	CURLM *multi;
	char *key; /* NULL = none */
	m1_calls_options options;
	m1_call *first;
};

struct m1_call
{
	m1_calls *all;
	CURL *easy;
	struct curl_slist *headers;
	const m1_call_handler *handler;
	void *context;
	m1_buf body;
	m1_buf answer; /* what has come and was not handed on */
	size_t seen;   /* of it: has no end of line */
	m1_buf event;  /* the data of an event whose end has not come */
	bool after_cr; /* a line feed that comes next belongs to the last end of line */
	bool streams;
	bool left;
	char why[CURL_ERROR_SIZE];
	m1_call *previous, *next;
};

/* ---- life ---- */

m1_status
m1_calls_create(const m1_calls_options *options, m1_calls **out, m1_error *err)
{
	m1_calls *calls = calloc(1, sizeof *calls);

	*out = NULL;
	if (calls == NULL || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK ||
		(calls->multi = curl_multi_init()) == NULL)
	{
		free(calls);
		return m1_fail(err, M1_E_NO_MEMORY, "could not start libcurl");
	}
	calls->options = *options;
	*out = calls;
	return M1_OK;
}

void
m1_calls_free(m1_calls *calls)
{
	if (calls == NULL)
		return;
	while (calls->first != NULL)
		m1_call_drop(calls->first);
	curl_multi_cleanup(calls->multi);
	m1_key_free(calls->key);
	free(calls);
}

void
m1_calls_set_key(m1_calls *calls, char *key)
{
	m1_key_free(calls->key);
	calls->key = key;
}

bool
m1_calls_is_new_key(const m1_calls *calls, const char *key)
{
	if (key == NULL || calls->key == NULL)
		return key != calls->key;
	return strcmp(key, calls->key) != 0;
}

void
m1_call_drop(m1_call *call)
{
	m1_calls *all = call->all;

	curl_multi_remove_handle(all->multi, call->easy);
	curl_easy_cleanup(call->easy);
	curl_slist_free_all(call->headers);
	if (call->previous != NULL)
		call->previous->next = call->next;
	else
		all->first = call->next;
	if (call->next != NULL)
		call->next->previous = call->previous;
	m1_buf_free(&call->body);
	m1_buf_free(&call->answer);
	m1_buf_free(&call->event);
	free(call);
}

/* ---- what comes back ---- */

/* The event is whole. What is no JSON object, as the mark of the end, says nothing. */
static bool
hand_on(m1_call *call)
{
	const bool says = call->event.len > 0 && *call->event.data == '{';
	const bool more = !says || call->handler->event(call->context, (m1_slice){call->event.data, call->event.len});

	m1_buf_consume(&call->event, call->event.len);
	return more;
}

/* Of an event's lines, those of data are put together; servers that leave the empty line out are understood, too. */
static bool
add_data(m1_call *call, m1_slice data)
{
	m1_buf *event = &call->event;
	const bool is_next = event->len > 0 && event->data[event->len - 1] == '}' && data.len > 0 &&
						 (*data.data == '{' || *data.data == '[');

	if (is_next && !hand_on(call))
		return false;
	if (event->len + data.len > M1_CALL_MAX_EVENT)
		return false;
	return (event->len == 0 || m1_buf_puts(event, "\n")) && m1_buf_append(event, data.data, data.len);
}

/* Lines of other fields, and comments, say nothing. An empty one is the end of an event. */
static bool
read_line(m1_call *call, m1_slice line)
{
	static const char field[] = "data:";

	if (line.len == 0)
		return hand_on(call);
	if (line.len < sizeof field - 1 || memcmp(line.data, field, sizeof field - 1) != 0)
		return true;
	line.data += sizeof field - 1;
	line.len -= sizeof field - 1;
	while (line.len > 0 && *line.data == ' ')
	{
		line.data++;
		line.len--;
	}
	return add_data(call, line);
}

/* The first end of line in these bytes: a line feed, a carriage return, or both. */
static const char *
end_of_line(const char *data, size_t len)
{
	const char *feed = memchr(data, '\n', len);
	const char *back = memchr(data, '\r', feed != NULL ? (size_t) (feed - data) : len);

	return back != NULL ? back : feed;
}

/* Hands on what is there in whole lines. */
static bool
read_lines(m1_call *call)
{
	m1_buf *answer = &call->answer;
	const char *end;

	while ((end = end_of_line(answer->data + call->seen, answer->len - call->seen)) != NULL)
	{
		const size_t len = (size_t) (end - answer->data);
		const bool belongs = call->after_cr && len == 0 && *end == '\n';

		call->after_cr = *end == '\r';
		if (!belongs && !read_line(call, (m1_slice){answer->data, len}))
			return false;
		m1_buf_consume(answer, len + 1);
		call->seen = 0;
		if (answer->len == 0)
			return true;
	}
	call->after_cr = call->after_cr && answer->len == 0;
	call->seen = answer->len;
	return true;
}

/* A stream that has ended has ended its last line and event, too. */
static bool
read_rest(m1_call *call)
{
	return read_line(call, (m1_slice){call->answer.data, call->answer.len}) && hand_on(call);
}

/* An error says why in its body, which is kept like an answer that is no stream. */
static bool
is_stream(const m1_call *call)
{
	const char *type = NULL;
	long status = 0;

	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(call->easy, CURLINFO_CONTENT_TYPE, &type);
	return status == 200 && type != NULL && strcasestr(type, "text/event-stream") != NULL;
}

static size_t
on_bytes(char *data, size_t unit, size_t n, void *context)
{
	m1_call *call = context;
	long status = 0;

	if (call->left) /* in a resume, of which libcurl forgets the end */
		return 0;
	if (call->handler->waits != NULL && call->handler->waits(call->context))
		return CURL_WRITEFUNC_PAUSE;
	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status != 200 && call->answer.len + unit * n > MAX_REFUSAL)
		return 0;
	if (call->answer.len + unit * n > M1_CALL_MAX_EVENT || !m1_buf_append(&call->answer, data, unit * n))
		return 0;
	call->streams = is_stream(call);
	if (!call->streams || read_lines(call))
		return unit * n;
	call->left = true;
	return 0;
}

/* ---- starting ---- */

static bool
has_part(CURLU *url, CURLUPart part)
{
	char *text = NULL;
	const bool there = curl_url_get(url, part, &text, 0) == CURLUE_OK && *text != '\0';

	curl_free(text);
	return there;
}

const char *
m1_call_url_fault(const char *url)
{
	CURLU *parts = curl_url();
	const char *fault = NULL;

	if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
		fault = "It must begin with http:// or https://.";
	else if (parts == NULL || curl_url_set(parts, CURLUPART_URL, url, 0) != CURLUE_OK ||
			 !has_part(parts, CURLUPART_HOST))
		fault = "It must name a host, and be written as urls are.";
	else if (has_part(parts, CURLUPART_USER) || has_part(parts, CURLUPART_PASSWORD))
		fault = "It must name no user, as everybody may see it: a key is in a file.";
	else if (has_part(parts, CURLUPART_QUERY) || has_part(parts, CURLUPART_FRAGMENT))
		fault = "Paths are added at its end, so that it can have neither ? nor #.";
	curl_url_cleanup(parts);
	return fault;
}

/* false: memory ran out. */
static bool
add_header(m1_call *call, const char *line)
{
	struct curl_slist *longer = curl_slist_append(call->headers, line);

	if (longer != NULL)
		call->headers = longer;
	return longer != NULL;
}

static bool
add_headers(m1_call *call)
{
	const char *key = call->all->key;
	m1_buf line = {0};
	bool ok = add_header(call, "Content-Type: application/json") && add_header(call, "Expect:");

	if (ok && key != NULL)
	{
		m1_buf_puts(&line, "Authorization: Bearer ");
		m1_buf_puts(&line, key);
		ok = m1_buf_cstr(&line) != NULL && add_header(call, line.data);
	}
	if (line.data != NULL)
		explicit_bzero(line.data, line.cap);
	m1_buf_free(&line);
	return ok;
}

static void
set_up(m1_call *call, const char *url)
{
	const m1_calls_options *o = &call->all->options;
	CURL *easy = call->easy;

	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, call->headers);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "minimax_m1");
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long) CONNECT_SECONDS);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long) o->silence);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->why);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_bytes);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
	if (o->ca_file != NULL && *o->ca_file != '\0')
		curl_easy_setopt(easy, CURLOPT_CAINFO, o->ca_file);
	if (call->body.len == 0)
		return;
	curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) call->body.len);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDS, call->body.data);
}

m1_call *
m1_call_start(m1_calls *calls, const char *url, m1_slice body, const m1_call_handler *handler, void *context)
{
	m1_call *call = calloc(1, sizeof *call);

	if (call == NULL || (call->easy = curl_easy_init()) == NULL)
	{
		free(call);
		return NULL;
	}
	call->all = calls;
	call->handler = handler;
	call->context = context;
	if ((call->next = calls->first) != NULL)
		call->next->previous = call;
	calls->first = call;
	m1_buf_append(&call->body, body.data, body.len);
	if (call->body.failed || !add_headers(call))
	{
		m1_call_drop(call);
		return NULL;
	}
	set_up(call, url);
	if (curl_multi_add_handle(calls->multi, call->easy) != CURLM_OK)
	{
		m1_call_drop(call);
		return NULL;
	}
	return call;
}

/* ---- ending ---- */

static m1_call_end
end_of(const m1_call *call, CURLcode code, long status)
{
	if (call->left)
		return M1_CALL_LEFT;
	if (status == 0)
		return M1_CALL_UNREACHABLE;
	if (code == CURLE_OPERATION_TIMEDOUT)
		return M1_CALL_UNREACHABLE;
	if (status == 429 || status == 503)
		return M1_CALL_BUSY;
	if (status != 200)
		return status >= 500 || status == 408 ? M1_CALL_FAILED : M1_CALL_REFUSED;
	return code == CURLE_OK ? M1_CALL_ANSWERED : M1_CALL_BROKEN;
}

static void
end_call(m1_call *call, CURLcode code)
{
	m1_call_result result = {.context = call->context, .why = "", .retry_after = -1};
	curl_off_t retry_after = 0;

	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &result.status);
	curl_easy_getinfo(call->easy, CURLINFO_RETRY_AFTER, &retry_after);
	if (retry_after > 0)
		result.retry_after = (double) retry_after;
	if (call->streams && code == CURLE_OK && !call->left && !read_rest(call))
		call->left = true;
	result.end = end_of(call, code, result.status);
	if (code != CURLE_OK)
		result.why = call->why[0] != '\0' ? call->why : curl_easy_strerror(code);
	if (!call->streams)
		result.body = (m1_slice){call->answer.data, call->answer.len};
	call->handler->over(&result);
	m1_call_drop(call);
}

/* What was held back comes at once, and may be all that is wanted. */
void
m1_call_resume(m1_call *call)
{
	const CURLcode code = curl_easy_pause(call->easy, CURLPAUSE_CONT);

	if (code != CURLE_OK || call->left)
		end_call(call, code);
}

m1_status
m1_calls_work(m1_calls *calls, int wait_ms, m1_error *err)
{
	CURLMcode code;
	CURLMsg *message;
	int n = 0;

	code = curl_multi_poll(calls->multi, NULL, 0, wait_ms, NULL);
	if (code == CURLM_OK)
		code = curl_multi_perform(calls->multi, &n);
	if (code != CURLM_OK)
		return m1_fail(err, M1_E_INTERNAL, "libcurl: %s", curl_multi_strerror(code));
	while ((message = curl_multi_info_read(calls->multi, &n)) != NULL)
	{
		m1_call *call;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &call);
		end_call(call, message->data.result);
	}
	return M1_OK;
}

void
m1_calls_wake(m1_calls *calls)
{
	curl_multi_wakeup(calls->multi);
}
