/* The bare system calls, below which no extension gets.
 *
 * `bare trysplice|trytee|splice CALLS BATCH` prints the nanoseconds that so many calls took. The first two
 * are made on an empty pipe; splice moves one byte, and the time between two batches, in which the
 * output is emptied, does not count. */

#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int input[2], output[2];

static void trysplice(void)
{
    if (splice(input[0], NULL, output[1], NULL, 1, SPLICE_F_NONBLOCK) != -1 || errno != EAGAIN)
        err(1, "splice on an empty pipe");
}

static void trytee(void)
{
    if (tee(input[0], output[1], 1, SPLICE_F_NONBLOCK) != -1 || errno != EAGAIN)
        err(1, "tee on an empty pipe");
}

static void move_a_byte(void)
{
    if (splice(input[0], NULL, output[1], NULL, 1, 0) != 1)
        err(1, "splice of one byte");
}

static long long nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        errx(2, "usage: bare trysplice|trytee|splice CALLS BATCH");
    void (*call)(void) = !strcmp(argv[1], "trysplice") ? trysplice : !strcmp(argv[1], "trytee") ? trytee : move_a_byte;
    long calls = atol(argv[2]), batch = atol(argv[3]);
    char *bytes = calloc(1, calls + batch);
    long long taken = 0;

    if (pipe2(input, O_NONBLOCK) || pipe2(output, O_NONBLOCK))
        err(1, "pipe2");
    if (fcntl(input[1], F_SETPIPE_SZ, 1 << 20) < 0 || fcntl(output[1], F_SETPIPE_SZ, 1 << 20) < 0)
        err(1, "F_SETPIPE_SZ");
    if (call == move_a_byte && write(input[1], bytes, calls) != calls)
        err(1, "write");

    for (long done = 0; done < calls; done += batch) {
        long long start = nanoseconds();
        for (long i = 0; i < batch; i++)
            call();
        taken += nanoseconds() - start;
        if (call == move_a_byte && read(output[0], bytes, batch) != batch)
            err(1, "read");
    }
    printf("%lld\n", taken);
    return 0;
}
