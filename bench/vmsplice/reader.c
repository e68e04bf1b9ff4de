/* The far end of the pipe, made to cost as little as possible.
 *
 * `reader reads|splices` takes the bytes out of its standard input until they end, up to 1 MiB at a time: into
 * memory, or on to /dev/null. It says "ready" when it is, and at the end how many bytes there were and which
 * nanosecond of the monotonic clock it was. */

#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { AT_ONCE = 1 << 20 };

int main(int argc, char **argv)
{
    if (argc != 2 || (strcmp(argv[1], "reads") && strcmp(argv[1], "splices")))
        errx(2, "usage: reader reads|splices");
    int splices = !strcmp(argv[1], "splices"), nowhere = open("/dev/null", O_WRONLY);
    char *memory = malloc(AT_ONCE);
    long long bytes = 0;
    ssize_t taken;
    struct timespec now;

    if (nowhere < 0 || !memory)
        err(1, "getting ready");
    if (fcntl(STDIN_FILENO, F_SETFL, 0))
        err(1, "standard input");
    memset(memory, 0, AT_ONCE);
    puts("ready");
    fflush(stdout);

    do {
        taken = splices ? splice(STDIN_FILENO, NULL, nowhere, NULL, AT_ONCE, 0) : read(STDIN_FILENO, memory, AT_ONCE);
        if (taken < 0)
            err(1, "%s", argv[1]);
        bytes += taken;
    } while (taken > 0);
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("%lld %lld\n", bytes, now.tv_sec * 1000000000LL + now.tv_nsec);
    return 0;
}
