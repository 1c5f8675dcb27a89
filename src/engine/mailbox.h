/*
 * mailbox.h - what other threads tell the step thread: new requests, and changes of mind about old ones. Any thread
 * posts; the step thread alone waits and takes.
 */
#ifndef M1_ENGINE_MAILBOX_H
#define M1_ENGINE_MAILBOX_H

#include <pthread.h>

#include "engine/learn_request.h"
#include "engine/request.h"

typedef enum m1_mail_kind
{
	M1_MAIL_REQUEST,
	M1_MAIL_LEARN,
	M1_MAIL_CANCEL,
	M1_MAIL_PAUSE,
	M1_MAIL_RESUME,
} m1_mail_kind;

typedef struct m1_mail
{
	m1_mail_kind kind;
	uint64_t id;
	m1_request *request;	 /* of M1_MAIL_REQUEST, else NULL */
	m1_learn_request *learn; /* of M1_MAIL_LEARN, else NULL */
	struct m1_mail *next;
} m1_mail;

typedef struct m1_mailbox
{
	pthread_mutex_t lock;
	pthread_cond_t arrived;
	m1_mail *first;
	m1_mail **last;
} m1_mailbox;

void m1_mailbox_init(m1_mailbox *b);
/* With the requests in it. */
void m1_mailbox_free(m1_mailbox *b);
/* Takes the request over; false, and nothing is taken, when memory ran out. */
bool m1_mailbox_post(m1_mailbox *b, m1_mail_kind kind, uint64_t id, m1_request *request);
bool m1_mailbox_post_learn(m1_mailbox *b, m1_learn_request *learn);
/* Blocks until there is mail, or for so many milliseconds; < 0: for however long. */
void m1_mailbox_wait(m1_mailbox *b, double ms);
/* All of it, oldest first; the caller frees each, and owns the requests. */
m1_mail *m1_mailbox_take(m1_mailbox *b);

#endif
