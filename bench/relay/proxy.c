/* The best plain proxy: one thread, an epoll loop, and a pipe of 1 MiB for each direction of a connection.
 *
 * `proxy LISTENER PORT` takes connections from the socket LISTENER and relays each to PORT, until it is killed. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PIPE = 1 << 20, EVENTS = 64, FLAGS = SPLICE_F_MOVE | SPLICE_F_NONBLOCK };

struct way {
    int in, out, pipe[2], ended;
    ssize_t held;
};

struct connection {
    struct way ways[2];
};

/* Whether the direction is over. */
static int move(struct way *way)
{
    while (!way->ended) {
        ssize_t moved;
        if (way->held == 0) {
            moved = splice(way->in, NULL, way->pipe[1], NULL, PIPE, FLAGS);
            if (moved == 0) {
                shutdown(way->out, SHUT_WR);
                way->ended = 1;
            } else if (moved > 0) {
                way->held = moved;
            }
        } else {
            moved = splice(way->pipe[0], NULL, way->out, NULL, way->held, FLAGS);
            if (moved > 0)
                way->held -= moved;
        }
        if (moved < 0 && errno == EAGAIN)
            return 0;
        if (moved < 0)
            err(1, "splice");
    }
    return 1;
}

static void set_up(int epoll, int fd, struct connection *connection)
{
    int on = 1;
    struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.ptr = connection}};
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) || fcntl(fd, F_SETFL, O_NONBLOCK))
        err(1, "connection");
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
        err(1, "epoll_ctl");
}

static void begin(int epoll, int listener, const struct sockaddr_in *upstream)
{
    struct connection *connection = calloc(1, sizeof *connection);
    int fds[2] = {accept4(listener, NULL, NULL, SOCK_CLOEXEC), socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (!connection || fds[0] < 0 || fds[1] < 0)
        err(1, "accept");
    if (connect(fds[1], (const struct sockaddr *)upstream, sizeof *upstream))
        err(1, "connect");
    for (int i = 0; i < 2; i++) {
        struct way *way = &connection->ways[i];
        way->in = fds[i];
        way->out = fds[1 - i];
        if (pipe2(way->pipe, O_CLOEXEC | O_NONBLOCK))
            err(1, "pipe2");
        fcntl(way->pipe[1], F_SETPIPE_SZ, PIPE); /* or as large as it may be */
    }
    set_up(epoll, fds[0], connection);
    set_up(epoll, fds[1], connection);
}

static void end(struct connection *connection)
{
    for (int i = 0; i < 2; i++) {
        close(connection->ways[i].in);
        close(connection->ways[i].pipe[0]);
        close(connection->ways[i].pipe[1]);
    }
    free(connection);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        errx(2, "usage: proxy LISTENER PORT");
    int listener = atoi(argv[1]), epoll = epoll_create1(EPOLL_CLOEXEC);
    struct sockaddr_in upstream = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    struct epoll_event events[EVENTS] = {{EPOLLIN, {.ptr = NULL}}};
    upstream.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, events))
        err(1, "epoll");

    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        if (count < 0 && errno != EINTR)
            err(1, "epoll_wait");
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (!connection) {
                begin(epoll, listener, &upstream);
                continue;
            }
            int over[2] = {move(&connection->ways[0]), move(&connection->ways[1])};
            if (!over[0] || !over[1])
                continue;
            end(connection);
            /* There may be a second event of the same one. */
            for (int j = i + 1; j < count; j++)
                if (events[j].data.ptr == connection)
                    events[j--] = events[--count];
        }
    }
}
