/* What is at the far ends of a copy, made to cost as little as possible.
 *
 * `ends feed BYTES FD...` puts so many bytes into each descriptor and closes it; `ends drain BYTES FD...` takes
 * bytes out of each until they end, and fails if there were more or fewer. */

#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FEED = 256 << 10, DRAIN = 1 << 20 };

static char bytes[FEED];
static int own[2], nowhere;

static ssize_t feed(int fd, int pipe, long long left)
{
    struct iovec piece = {bytes, left < FEED ? left : FEED};
    if (left == 0)
        return 0;
    return pipe ? vmsplice(fd, &piece, 1, 0) : write(fd, piece.iov_base, piece.iov_len);
}

static ssize_t drain(int fd, int pipe, long long left)
{
    (void)left;
    if (pipe)
        return splice(fd, NULL, nowhere, NULL, DRAIN, 0);
    ssize_t held = splice(fd, NULL, own[1], NULL, DRAIN, 0);
    for (ssize_t more = held; more > 0;)
        more -= splice(own[0], NULL, nowhere, NULL, more, 0);
    return held;
}

int main(int argc, char **argv)
{
    if (argc < 4)
        errx(2, "usage: ends feed|drain BYTES FD...");
    int feeds = !strcmp(argv[1], "feed"), count = argc - 3;
    ssize_t (*move)(int, int, long long) = feeds ? feed : drain;
    struct pollfd *fds = calloc(count, sizeof *fds);
    long long *left = calloc(count, sizeof *left);
    struct stat stat;

    memset(bytes, 'x', FEED);
    if ((nowhere = open("/dev/null", O_WRONLY)) < 0 || pipe(own))
        err(1, "own pipe");
    fcntl(own[1], F_SETPIPE_SZ, DRAIN);
    for (int i = 0; i < count; i++) {
        fds[i] = (struct pollfd){.fd = atoi(argv[i + 3]), .events = feeds ? POLLOUT : POLLIN};
        left[i] = atoll(argv[2]);
        /* One alone waits in the call itself. */
        if (fstat(fds[i].fd, &stat) || fcntl(fds[i].fd, F_SETFL, count == 1 ? 0 : O_NONBLOCK))
            err(1, "descriptor %s", argv[i + 3]);
    }
    int pipe = S_ISFIFO(stat.st_mode);

    for (int open = count; open > 0;) {
        if (count > 1 && poll(fds, count, -1) < 0)
            err(1, "poll");
        for (int i = 0; i < count; i++) {
            if (fds[i].fd < 0 || (count > 1 && !fds[i].revents))
                continue;
            ssize_t moved = move(fds[i].fd, pipe, left[i]);
            if (moved < 0 && errno != EAGAIN)
                err(1, "%s", argv[1]);
            if (moved > 0)
                left[i] -= moved;
            if (moved == 0) {
                if (left[i])
                    errx(1, "the copy is %lld bytes short", left[i]);
                close(fds[i].fd);
                fds[i].fd = -1;
                open--;
            }
        }
    }
    return 0;
}
