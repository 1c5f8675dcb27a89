/* latency.c - see latency.h. */
#include "base/latency.h"

const double m1_latency_bounds[M1_LATENCY_BOUNDS] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5,
													 0.75,	1,	   2.5,	 5,	   7.5,	 10,   30,	 60,  300,	1800};

void
m1_latency_add(m1_latency *l, double seconds)
{
	int i = 0;

	while (i < M1_LATENCY_BOUNDS && seconds > m1_latency_bounds[i])
		i++;
	l->counts[i]++;
	l->seconds += seconds;
}
