/* A monotonic clock that advances by a microsecond with each reading, for programs that run under valgrind.
 *
 * Preloaded, it makes the number of event-loop iterations independent of the speed of the machine: headrace yields to
 * the loop after half a millisecond of ready items.
 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static _Atomic long long microseconds = 1000000;

int clock_gettime(clockid_t clock, struct timespec *time) {
	if (clock != CLOCK_MONOTONIC)
		return (int)syscall(SYS_clock_gettime, clock, time);
	long long now = atomic_fetch_add(&microseconds, 1);
	time->tv_sec = now / 1000000;
	time->tv_nsec = now % 1000000 * 1000;
	return 0;
}
