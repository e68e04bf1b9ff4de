/* The best plain loop for each pair of ends, below which no extension gets.
 *
 * `copy [-m] [-l BYTES -n TIMES] IN OUT [IN OUT]...` copies from descriptor to descriptor, several pairs at once in
 * threads: until the input ends, or so many bytes, so many times, a file from its beginning to another's. With -m it
 * reads and writes. It prints the nanoseconds that this took, those of the processor, and the bytes. */

#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 0x7ffff000, PIPE = 1 << 20, BUFFER = 256 << 10, FLAGS = SPLICE_F_MOVE | SPLICE_F_NONBLOCK };

struct pair {
    int in, out;
    long long bytes;
    pthread_t thread;
};

static long long length = 0x7fffffffffffffff, times = 1;
static int in_memory;

static size_t smaller(long long one, size_t other)
{
    return one < (long long)other ? (size_t)one : other;
}

static mode_t type(int fd)
{
    struct stat stat;
    if (fstat(fd, &stat))
        err(1, "fstat");
    return stat.st_mode & S_IFMT;
}

/* A file never has to be waited for. */
static void await(int fd, short events)
{
    struct pollfd end = {fd, events, 0};
    if (type(fd) != S_IFREG && poll(&end, 1, -1) < 0)
        err(1, "poll");
}

static ssize_t by_range(int in, int out, size_t most)
{
    return copy_file_range(in, NULL, out, NULL, most, 0);
}

static ssize_t by_sendfile(int in, int out, size_t most)
{
    return sendfile(out, in, NULL, most);
}

static ssize_t by_splice(int in, int out, size_t most)
{
    return splice(in, NULL, out, NULL, most, FLAGS);
}

static long long straight(int in, int out, ssize_t (*move)(int, int, size_t))
{
    int file = type(in) == S_IFREG;
    long long total = 0;
    for (;;) {
        ssize_t moved = total < length ? move(in, out, smaller(length - total, MOST)) : 0;
        if (moved > 0) {
            total += moved;
        } else if (moved == 0) {
            return total;
        } else if (errno == EAGAIN) {
            if (!file)
                await(in, POLLIN);
            await(out, POLLOUT);
        } else {
            err(1, "copying");
        }
    }
}

static long long through_a_pipe(int in, int out)
{
    long long total = 0;
    static __thread int own[2];
    if (!own[1]) {
        if (pipe2(own, O_CLOEXEC | O_NONBLOCK))
            err(1, "pipe2");
        fcntl(own[1], F_SETPIPE_SZ, PIPE);
    }
    while (total < length) {
        ssize_t held = splice(in, NULL, own[1], NULL, smaller(length - total, PIPE), FLAGS);
        if (held == 0)
            break;
        if (held < 0) {
            if (errno != EAGAIN)
                err(1, "splice in");
            await(in, POLLIN);
            continue;
        }
        total += held;
        while (held > 0) {
            ssize_t moved = splice(own[0], NULL, out, NULL, held, FLAGS);
            if (moved >= 0)
                held -= moved;
            else if (errno == EAGAIN)
                await(out, POLLOUT);
            else
                err(1, "splice out");
        }
    }
    return total;
}

/* TCP sends the pages of a UNIX socket's buffers in small pieces and wakes its reader for each: measured, that
 * takes three times the processor of copying them. */
static long long through_memory(int in, int out)
{
    long long total = 0;
    static __thread char *buffer;
    if (!buffer && !(buffer = malloc(BUFFER)))
        err(1, "malloc");
    while (total < length) {
        ssize_t held = read(in, buffer, smaller(length - total, BUFFER));
        if (held == 0)
            break;
        if (held < 0) {
            if (errno != EAGAIN)
                err(1, "read");
            await(in, POLLIN);
            continue;
        }
        total += held;
        for (char *from = buffer; held > 0;) {
            ssize_t moved = write(out, from, held);
            if (moved >= 0) {
                from += moved;
                held -= moved;
            } else if (errno == EAGAIN) {
                await(out, POLLOUT);
            } else {
                err(1, "write");
            }
        }
    }
    return total;
}

static int family(int socket)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    if (getsockname(socket, (struct sockaddr *)&address, &size))
        err(1, "getsockname");
    return address.ss_family;
}

static long long once(int in, int out, mode_t from, mode_t to, int from_unix_to_tcp)
{
    if (in_memory || from_unix_to_tcp)
        return through_memory(in, out);
    if (from == S_IFIFO || to == S_IFIFO)
        return straight(in, out, by_splice);
    if (from == S_IFREG)
        return straight(in, out, to == S_IFREG ? by_range : by_sendfile);
    return through_a_pipe(in, out);
}

static void *copy(void *argument)
{
    struct pair *pair = argument;
    mode_t from = type(pair->in), to = type(pair->out);
    int from_unix_to_tcp = from == S_IFSOCK && to == S_IFSOCK && family(pair->in) == AF_UNIX &&
                           family(pair->out) != AF_UNIX;
    for (long long left = times; left > 0; left--) {
        if (times > 1 && from == S_IFREG)
            lseek(pair->in, 0, SEEK_SET);
        if (times > 1 && to == S_IFREG)
            lseek(pair->out, 0, SEEK_SET);
        pair->bytes += once(pair->in, pair->out, from, to, from_unix_to_tcp);
    }
    return NULL;
}

static long long nanoseconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int main(int argc, char **argv)
{
    for (int option; (option = getopt(argc, argv, "ml:n:")) != -1;) {
        if (option == 'm')
            in_memory = 1;
        else if (option == 'l')
            length = atoll(optarg);
        else if (option == 'n')
            times = atoll(optarg);
    }
    argc -= optind - 1;
    argv += optind - 1;
    int pairs = (argc - 1) / 2;
    if (pairs < 1 || argc % 2 == 0)
        errx(2, "usage: copy [-m] [-l BYTES -n TIMES] IN OUT [IN OUT]...");
    struct pair *all = calloc(pairs, sizeof *all);
    for (int i = 0; i < pairs; i++)
        all[i] = (struct pair){.in = atoi(argv[2 * i + 1]), .out = atoi(argv[2 * i + 2])};

    await(all[0].in, POLLIN);
    long long start = nanoseconds(CLOCK_MONOTONIC), cpu = nanoseconds(CLOCK_PROCESS_CPUTIME_ID), bytes = 0;
    if (pairs == 1) {
        copy(all);
    } else {
        for (int i = 0; i < pairs; i++)
            if (pthread_create(&all[i].thread, NULL, copy, &all[i]))
                errx(1, "pthread_create");
        for (int i = 0; i < pairs; i++)
            pthread_join(all[i].thread, NULL);
    }
    cpu = nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    start = nanoseconds(CLOCK_MONOTONIC) - start;
    for (int i = 0; i < pairs; i++)
        bytes += all[i].bytes;
    printf("%lld %lld %lld\n", start, cpu, bytes);
    return 0;
}
