/* clock.h - the monotonic clock, in milliseconds. */
#ifndef M1_BASE_CLOCK_H
#define M1_BASE_CLOCK_H

double m1_now_ms(void);

#endif
