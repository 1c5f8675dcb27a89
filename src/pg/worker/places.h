/*
 * places.h - who gets the engine's places (places.c).
 */
#ifndef M1PG_PLACES_H
#define M1PG_PLACES_H

#include "pg/m1pg.h"

/* Somebody waits for a place in the batch, and none is free. */
extern bool m1pg_places_wanted;

extern void m1pg_places_init(void);
/* Those that are free go to requests that wait: these may be read and forwarded. */
extern void m1pg_places_give(void);

#endif							/* M1PG_PLACES_H */
