/* Both far ends of a proxy, made to cost as little as possible: those who connect to it, and the server that it
 * connects to, which listens already. Each side is one thread.
 *
 * `client stream PORT LISTENER COUNT TO_SERVER TO_CLIENT IDLE CHECK` opens COUNT connections and IDLE more, passes
 * one message there and back over each, says "ready" and waits for a line. Then it sends so many bytes each way
 * over all of the COUNT at once, and ends them. It says how many nanoseconds that took, and passes a message over
 * each of those that were idle. It fails if bytes are missing, or too many, or wrong; only with CHECK = 1 it looks
 * at all of them.
 *
 * `client beside PORT LISTENER COUNT TO_SERVER TO_CLIENT BAD` does the same, and checks nothing, while BAD other
 * connections misbehave: of four, one client sends byte by byte, one sends urgent bytes, one never reads what its server
 * sends on and on, and one resets the connection.
 *
 * `client trips PORT LISTENER COUNT IDLE` opens one connection and IDLE more in the same way, and then sends COUNT
 * messages of 100 bytes over the one, each when the last one has been answered. It says the median of the nanoseconds
 * there and back, and how long 99 of 100 took at most. It keeps all connections until its input ends.
 *
 * `client short PORT LISTENER COUNT BYTES` says "ready" and waits for a line. Then it opens COUNT connections, a few at a
 * time, sends so many bytes there and back over each, and closes it. It says how many nanoseconds that took. With 0 bytes
 * it is the proxy that closes.
 *
 * `client run COMMAND...` becomes another program, which ends when the one that started it does. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Nobody is waited for longer than PATIENCE seconds. */
enum { MESSAGE = 100, SEND = 256 << 10, RECEIVE = 1 << 20, PATIENCE = 30, AT_ONCE = 8 };

/* What is sent, again and again, beginning at another place for each stream. Its length is prime. */
enum { PATTERN = 1048573 };
static char pattern[PATTERN];

struct end {
    int fd, receiving;
    long long to_send, to_receive;
    size_t send_from, receive_from;
};

/* The ends of one side of all connections. */
struct side {
    struct end *ends;
    int count, check;
    pthread_t thread;
};

static long long nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void make_pattern(void)
{
    uint32_t state = 1;
    for (int i = 0; i < PATTERN; i++)
        pattern[i] = (state = state * 1664525 + 1013904223) >> 24;
}

static void prepare(int fd)
{
    int on = 1;
    struct timeval patience = {.tv_sec = PATIENCE};
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience))
        err(1, "setsockopt");
}

static void send_message(int fd, const char *message)
{
    if (send(fd, message, MESSAGE, MSG_NOSIGNAL) != MESSAGE)
        err(1, "sending a message");
}

/* 0 if there is none, because the connection has ended. */
static int receive_message(int fd, const char *expected)
{
    char message[MESSAGE];
    ssize_t received = recv(fd, message, MESSAGE, MSG_WAITALL);
    if (received < 0)
        err(1, "waiting for a message");
    if (received == 0)
        return 0;
    if (received != MESSAGE || memcmp(message, expected, MESSAGE))
        errx(1, "a message has arrived changed");
    return 1;
}

static void there_and_back(int client, int server)
{
    static int place;
    const char *request = pattern + place, *response = request + MESSAGE;
    place = (place + MESSAGE) % (PATTERN - 2 * MESSAGE);
    send_message(client, request);
    if (!receive_message(server, request))
        errx(1, "a connection has ended early");
    send_message(server, response);
    if (!receive_message(client, response))
        errx(1, "a connection has ended early");
}

/* One at a time, so that it is clear which two ends belong together. */
static void open_connection(int port, int listener, int *client, int *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct pollfd incoming = {listener, POLLIN, 0};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if ((*client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0)
        err(1, "socket");
    prepare(*client);
    if (connect(*client, (struct sockaddr *)&address, sizeof address))
        err(1, "connecting to port %d", port);
    if (poll(&incoming, 1, PATIENCE * 1000) != 1)
        errx(1, "the proxy does not connect to the server");
    if ((*server = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0)
        err(1, "accept");
    prepare(*server);
    there_and_back(*client, *server);
}

static void ready(void)
{
    char line[16];
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        exit(1); /* nobody wants to go on */
}

static void send_some(struct end *end)
{
    long long most = end->to_send < SEND ? end->to_send : SEND;
    if (most > (long long)(PATTERN - end->send_from))
        most = PATTERN - end->send_from;
    ssize_t sent = send(end->fd, pattern + end->send_from, most, MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN)
        return;
    if (sent < 0)
        err(1, "sending");
    end->to_send -= sent;
    end->send_from = (end->send_from + sent) % PATTERN;
    if (end->to_send == 0 && shutdown(end->fd, SHUT_WR))
        err(1, "shutdown");
}

static void receive_some(struct end *end, int check, char *buffer)
{
    size_t most = RECEIVE;
    if (check && PATTERN - end->receive_from < most)
        most = PATTERN - end->receive_from;
    /* What is cut off, TCP throws away without copying it. */
    ssize_t received = recv(end->fd, buffer, most, check ? 0 : MSG_TRUNC);
    if (received < 0 && errno == EAGAIN)
        return;
    if (received < 0)
        err(1, "receiving");
    if (check && memcmp(buffer, pattern + end->receive_from, received))
        errx(1, "wrong bytes have arrived");
    end->to_receive -= received;
    end->receive_from = (end->receive_from + received) % PATTERN;
    end->receiving = received > 0;
    if (end->to_receive < 0)
        errx(1, "%lld bytes too many have arrived", -end->to_receive);
    if (!end->receiving && end->to_receive > 0)
        errx(1, "the input has ended %lld bytes early", end->to_receive);
}

static short interest(const struct end *end)
{
    return (end->to_send > 0 ? POLLOUT : 0) | (end->receiving ? POLLIN : 0);
}

static void *stream(void *argument)
{
    struct side *side = argument;
    struct pollfd *fds = calloc(side->count, sizeof *fds);
    char *buffer = malloc(RECEIVE);
    if (!fds || !buffer)
        err(1, "malloc");
    for (int i = 0; i < side->count; i++) {
        struct end *end = &side->ends[i];
        if (fcntl(end->fd, F_SETFL, O_NONBLOCK))
            err(1, "fcntl");
        if (end->to_send == 0 && shutdown(end->fd, SHUT_WR))
            err(1, "shutdown");
        fds[i] = (struct pollfd){end->fd, interest(end), 0};
    }
    for (int open = side->count; open > 0;) {
        int changed = poll(fds, side->count, PATIENCE * 1000);
        if (changed < 0)
            err(1, "poll");
        if (changed == 0)
            errx(1, "nothing has moved for %d s", PATIENCE);
        for (int i = 0; i < side->count; i++) {
            struct end *end = &side->ends[i];
            if (fds[i].fd < 0 || !fds[i].revents)
                continue;
            if (end->receiving)
                receive_some(end, side->check, buffer);
            if (end->to_send > 0)
                send_some(end);
            fds[i].events = interest(end);
            if (!fds[i].events) {
                fds[i].fd = -1;
                open--;
            }
        }
    }
    free(buffer);
    free(fds);
    return NULL;
}

/* How often each of those sends that misbehave. */
enum { TURN_MS = 20 };

static void *misbehave(void *argument)
{
    struct side *bad = argument;
    static char buffer[SEND];
    for (;;) {
        for (int i = 0; i < bad->count; i += 2) {
            int client = bad->ends[i].fd, server = bad->ends[i + 1].fd, kind = i / 2 % 4;
            /* An error is no matter: the proxy may end the connection. */
            switch (kind) {
            case 0:
            case 1:
                send(client, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT | (kind ? MSG_OOB : 0));
                recv(server, buffer, sizeof buffer, MSG_DONTWAIT);
                break;
            case 2:
                send(server, buffer, sizeof buffer, MSG_NOSIGNAL | MSG_DONTWAIT);
            }
        }
        poll(NULL, 0, TURN_MS);
    }
    return NULL;
}

static void begin_to_misbehave(struct side *bad)
{
    for (int i = 6; i < bad->count; i += 8) {
        struct linger reset = {1, 0};
        if (setsockopt(bad->ends[i].fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset))
            err(1, "setsockopt");
        close(bad->ends[i].fd);
    }
    if (pthread_create(&bad->thread, NULL, misbehave, bad))
        errx(1, "pthread_create");
}

static void streams(int port, int listener, int count, long long to_server, long long to_client, int idle, int check,
                    int bad)
{
    int all = count + idle;
    struct end *clients = calloc(all, sizeof *clients), *servers = calloc(all, sizeof *servers);
    if (!clients || !servers)
        err(1, "calloc");
    for (int i = 0; i < all; i++) {
        size_t request = 2 * i * 4099L % PATTERN, response = (2 * i + 1) * 4099L % PATTERN;
        clients[i] = (struct end){-1, 1, to_server, to_client, request, response};
        servers[i] = (struct end){-1, 1, to_client, to_server, response, request};
        open_connection(port, listener, &clients[i].fd, &servers[i].fd);
    }
    struct side client = {clients, count, check, 0}, server = {servers, count, check, 0};
    struct side others = {calloc(2 * bad + 1, sizeof *others.ends), 2 * bad, 0, 0};
    if (!others.ends)
        err(1, "calloc");
    for (int i = 0; i < others.count; i += 2)
        open_connection(port, listener, &others.ends[i].fd, &others.ends[i + 1].fd);
    if (bad)
        begin_to_misbehave(&others);

    ready();
    long long start = nanoseconds();
    if (pthread_create(&server.thread, NULL, stream, &server))
        errx(1, "pthread_create");
    stream(&client);
    pthread_join(server.thread, NULL);
    printf("%lld\n", nanoseconds() - start);
    for (int i = count; i < all; i++)
        there_and_back(clients[i].fd, servers[i].fd);
}

static void *answer(void *fd)
{
    while (receive_message(*(int *)fd, pattern))
        send_message(*(int *)fd, pattern + MESSAGE);
    return NULL;
}

static int compare(const void *a, const void *b)
{
    long long left = *(const long long *)a, right = *(const long long *)b;
    return (left > right) - (left < right);
}

static void trips(int port, int listener, int count, int idle)
{
    long long *times = calloc(count, sizeof *times);
    int client, server;
    pthread_t other;
    cpu_set_t here;
    if (!times)
        err(1, "calloc");
    /* Both threads stay on one processor, or it would depend on luck how long one takes to wake the other. */
    CPU_ZERO(&here);
    CPU_SET(sched_getcpu(), &here);
    if (sched_setaffinity(0, sizeof here, &here))
        err(1, "sched_setaffinity");
    open_connection(port, listener, &client, &server);
    for (int i = 0, ends[2]; i < idle; i++)
        open_connection(port, listener, &ends[0], &ends[1]);
    if (pthread_create(&other, NULL, answer, &server))
        errx(1, "pthread_create");

    ready();
    for (int i = 0; i < count; i++) {
        long long start = nanoseconds();
        send_message(client, pattern);
        if (!receive_message(client, pattern + MESSAGE))
            errx(1, "the connection has ended early");
        times[i] = nanoseconds() - start;
    }
    qsort(times, count, sizeof *times, compare);
    printf("%lld %lld\n", times[count / 2], times[count * 99LL / 100]);
    fclose(stdout);
    while (getchar() != EOF)
        ;
    if (shutdown(client, SHUT_WR))
        err(1, "shutdown");
    pthread_join(other, NULL);
}

/* Connections that are opened and closed again. */
struct shorts {
    int port, listener, count, bytes;
};

static void send_all(int fd, size_t bytes)
{
    if (send(fd, pattern, bytes, MSG_NOSIGNAL) != (ssize_t)bytes)
        err(1, "sending");
}

static void receive_all(int fd, size_t bytes)
{
    char buffer[SEND];
    ssize_t received = recv(fd, buffer, bytes, MSG_WAITALL);
    if (received < 0)
        err(1, "receiving");
    if (received != (ssize_t)bytes || memcmp(buffer, pattern, bytes))
        errx(1, "wrong bytes have arrived, or too few");
}

static void until_end(int fd)
{
    char byte;
    ssize_t received = recv(fd, &byte, 1, 0);
    if (received != 0 && !(received < 0 && errno == ECONNRESET))
        errx(1, "a connection does not end");
    close(fd);
}

static void *serve_shorts(void *argument)
{
    struct shorts *shorts = argument;
    while (__atomic_fetch_sub(&shorts->count, 1, __ATOMIC_RELAXED) > 0) {
        int server = accept4(shorts->listener, NULL, NULL, SOCK_CLOEXEC);
        if (server < 0)
            err(1, "accept");
        prepare(server);
        receive_all(server, shorts->bytes);
        send_all(server, shorts->bytes);
        until_end(server);
    }
    return NULL;
}

static void *make_shorts(void *argument)
{
    struct shorts *shorts = argument;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(shorts->port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    while (__atomic_fetch_sub(&shorts->count, 1, __ATOMIC_RELAXED) > 0) {
        int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (client < 0)
            err(1, "socket");
        prepare(client);
        if (connect(client, (struct sockaddr *)&address, sizeof address))
            err(1, "connecting to port %d", shorts->port);
        send_all(client, shorts->bytes);
        receive_all(client, shorts->bytes);
        if (shorts->bytes > 0 && shutdown(client, SHUT_WR))
            err(1, "shutdown");
        until_end(client);
    }
    return NULL;
}

static void short_ones(int port, int listener, int count, int bytes)
{
    struct shorts clients = {port, listener, count, bytes}, servers = clients;
    pthread_t threads[2 * AT_ONCE];
    if (bytes > SEND)
        errx(2, "too many bytes");
    if (fcntl(listener, F_SETFL, 0))
        err(1, "fcntl");

    ready();
    long long start = nanoseconds();
    for (int i = 0; i < 2 * AT_ONCE; i++)
        if (pthread_create(&threads[i], NULL, i % 2 ? make_shorts : serve_shorts, i % 2 ? &clients : &servers))
            errx(1, "pthread_create");
    for (int i = 0; i < 2 * AT_ONCE; i++)
        pthread_join(threads[i], NULL);
    printf("%lld\n", nanoseconds() - start);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    if (prctl(PR_SET_PDEATHSIG, SIGKILL))
        err(1, "prctl");
    if (!strcmp(mode, "run") && argc > 2) {
        execvp(argv[2], argv + 2);
        err(1, "%s", argv[2]);
    }
    make_pattern();
    if (!strcmp(mode, "stream") && argc == 9)
        streams(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), atoll(argv[5]), atoll(argv[6]), atoi(argv[7]),
                atoi(argv[8]), 0);
    else if (!strcmp(mode, "beside") && argc == 8)
        streams(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), atoll(argv[5]), atoll(argv[6]), 0, 0, atoi(argv[7]));
    else if (!strcmp(mode, "trips") && argc == 6 && atoi(argv[4]) > 0)
        trips(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
    else if (!strcmp(mode, "short") && argc == 6)
        short_ones(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
    else
        errx(2, "usage: client stream PORT LISTENER COUNT TO_SERVER TO_CLIENT IDLE CHECK\n"
                "       client trips PORT LISTENER COUNT IDLE\n"
                "       client short PORT LISTENER COUNT BYTES\n"
                "       client run COMMAND...");
    return 0;
}
