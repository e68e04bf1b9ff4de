/* vmsplice as one writes it at first: the same pages again and again, which is safe only as long as nobody ever
 * writes to them.
 *
 * `writer FD SIZE COUNT` puts so many pieces of this size into the pipe. It prints at which nanosecond of the
 * monotonic clock it began, and how many nanoseconds of the processor it took. */

#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static long long nanoseconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        errx(2, "usage: writer FD SIZE COUNT");
    int pipe = atoi(argv[1]);
    size_t size = atoll(argv[2]);
    long long count = atoll(argv[3]);
    char *pages = aligned_alloc(sysconf(_SC_PAGESIZE), size);
    if (!pages)
        err(1, "aligned_alloc");
    memset(pages, 'x', size);

    long long start = nanoseconds(CLOCK_MONOTONIC), cpu = nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
    for (long long i = 0; i < count; i++) {
        struct iovec piece = {pages, size};
        while (piece.iov_len > 0) {
            /* It waits for room, also where the pipe is O_NONBLOCK. */
            ssize_t put_in = vmsplice(pipe, &piece, 1, 0);
            if (put_in < 0)
                err(1, "vmsplice");
            piece.iov_base = (char *)piece.iov_base + put_in;
            piece.iov_len -= put_in;
        }
    }
    cpu = nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    printf("%lld %lld\n", start, cpu);
    return 0;
}
