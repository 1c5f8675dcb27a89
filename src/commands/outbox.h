/*
 * outbox.h - messages that wait to be written to the socket, and the frames that they become.
 *
 * Any thread puts messages in; one thread, the main one, writes, drops and pauses. What fits in one frame goes out in
 * the order in which it came. Long messages are made into frames one by one when there is nothing else, and take turns.
 * The messages of one request keep their order.
 */
#ifndef M1_COMMANDS_OUTBOX_H
#define M1_COMMANDS_OUTBOX_H

#include "wire/frame.h"

typedef struct m1_outbox m1_outbox;

/* Called by the writing thread: frees a long payload, which takes a while, on some other thread. */
typedef void m1_outbox_discard(void *context, m1_buf *payload);

/* NULL when memory or descriptors ran out. */
m1_outbox *m1_outbox_create(m1_outbox_discard *discard, void *context);
/* With what it has; nobody may use it any more. */
void m1_outbox_free(m1_outbox *o);

/* Takes the payload over. A message that cannot be kept breaks the outbox: who waits for it would wait for ever. */
void m1_outbox_put(m1_outbox *o, m1w_type type, uint64_t id, m1_buf *payload);
/* There will be no more messages: whoever writes is to end when all are written. */
void m1_outbox_break(m1_outbox *o);

/* ---- the writing thread ---- */

/* Readable when there is something new. */
int m1_outbox_fd(const m1_outbox *o);
void m1_outbox_heard(m1_outbox *o);
/* Whether there is something to write; and whether the outbox is broken. */
bool m1_outbox_pending(m1_outbox *o, bool *broken);
/* Writes what the socket takes, within bounds. false: it is broken. */
bool m1_outbox_write(m1_outbox *o, int fd);
/* Drops the request's long messages. false: there are none, or what is here is not all that comes of it. */
bool m1_outbox_drop(m1_outbox *o, uint64_t id);
/* The same for the next two. No more frames are made of them until they are resumed. */
bool m1_outbox_pause(m1_outbox *o, uint64_t id, bool paused);

#endif
