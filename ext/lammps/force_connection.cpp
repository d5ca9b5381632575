// SPDX-License-Identifier: GPL-2.0-or-later
#include "force_connection.h"

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace comitia
{
namespace
{

constexpr size_t HEADER = 12;               // bytes
constexpr int32_t LONGEST_EXTRAS = 1 << 26; // bytes
constexpr double GREETING = 120.0;          // s to answer STATUS

double now()
{
    using namespace std::chrono;
    return duration<double>(steady_clock::now().time_since_epoch()).count();
}

// Milliseconds until a deadline as poll takes them, at least 0.
int left(double deadline)
{
    const double seconds = deadline - now();
    return seconds <= 0 ? 0 : static_cast<int>(std::ceil(1e3 * std::fmin(seconds, 1e6)));
}

std::string seconds_of(double seconds)
{
    const std::string text = std::to_string(seconds);
    return text.substr(0, text.find('.') + 2) + " s";
}

std::string reason()
{
    return std::strerror(errno);
}

// Wait until a socket can be read or written; whether that came before the deadline.
bool ready(int socket, short events, double deadline)
{
    pollfd one = {socket, events, 0};
    while (true) {
        const int found = poll(&one, 1, left(deadline));
        if (found > 0)
            return true;
        if (found == 0 && now() >= deadline)
            return false;
        if (found < 0 && errno != EINTR)
            throw connection_error("poll failed (" + reason() + ")");
    }
}

} // namespace

force_connection::force_connection(double wait, double timeout) : wait(wait), timeout(timeout) {}

force_connection::~force_connection()
{
    leave();
}

void force_connection::listen_on(int family, const void *name, unsigned length)
{
    listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int yes = 1;
    if (listener >= 0 && family != AF_UNIX)
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (listener < 0 || bind(listener, static_cast<const sockaddr *>(name), length) != 0 || listen(listener, 1) != 0)
        throw connection_error("cannot listen on " + address + " (" + reason() + "); choose another address");
}

void force_connection::listen_unix(const std::string &where)
{
    address = "unix:" + where;
    sockaddr_un name = {};
    name.sun_family = AF_UNIX;
    if (where.size() >= sizeof(name.sun_path))
        throw connection_error(address + " is too long for a socket; choose a shorter name");
    std::memcpy(name.sun_path, where.c_str(), where.size());
    struct stat there;
    if (lstat(where.c_str(), &there) == 0) { // a socket on which nobody listens was left by a program that died
        const int probe = S_ISSOCK(there.st_mode) ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;
        const bool left_over = probe >= 0 && connect(probe, reinterpret_cast<sockaddr *>(&name), sizeof(name)) != 0 &&
                               errno == ECONNREFUSED;
        if (probe >= 0)
            close(probe);
        if (!left_over)
            throw connection_error(address + " is in use; choose another name");
        unlink(where.c_str());
    }
    listen_on(AF_UNIX, &name, sizeof(name));
    path = where;
}

void force_connection::listen_inet(const std::string &host, const std::string &port)
{
    address = "tcp:" + host + ":" + port;
    addrinfo hints = {}, *found = nullptr;
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE;
    char *behind;
    const long number = std::strtol(port.c_str(), &behind, 10);
    if (*behind != 0 || number < 1 || number > 65535)
        throw connection_error(address + ": a port is a number from 1 to 65535");
    const int failed = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
    if (failed != 0)
        throw connection_error(address + " is no address (" + gai_strerror(failed) + ")");
    try {
        listen_on(found->ai_family, found->ai_addr, found->ai_addrlen);
    } catch (...) {
        freeaddrinfo(found);
        throw;
    }
    freeaddrinfo(found);
}

void force_connection::forget_path()
{
    if (!path.empty())
        unlink(path.c_str());
    path.clear();
}

void force_connection::accept_client(int32_t the_replica, const std::string &the_text)
{
    replica = the_replica;
    text = the_text;
    const double until = now() + wait;
    while (client < 0) {
        if (!ready(listener, POLLIN, until))
            throw connection_error("no force client came to " + address + " within " + seconds_of(wait) +
                                   "; start `comitia serve` for it, or say wait SECONDS");
        client = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (client < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            throw connection_error("accept failed at " + address + " (" + reason() + ")");
    }
    const int yes = 1;
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes)); // fails for unix, as it may
    close(listener);
    listener = -1;
    forget_path();
    append_header("STATUS");
    send_all();
    introduce(now() + GREETING);
}

void force_connection::introduce(double deadline)
{
    std::string said = receive_header(deadline, "answered STATUS");
    if (said == "NEEDINIT") {
        const int32_t numbers[2] = {replica, static_cast<int32_t>(text.size())};
        append_header("INIT");
        append(numbers, sizeof(numbers));
        append(text.data(), text.size());
        append_header("STATUS");
        send_all();
        said = receive_header(now() + timeout, "answered INIT"); // it may load what it needs
    }
    if (said != "READY")
        throw connection_error("the force client at " + address + " says '" + said +
                               "' where READY has its place; it does not speak the protocol");
}

void force_connection::compute(const double *cell, const double *inverse, const std::vector<double> &positions,
                               force_answer &answer)
{
    const int32_t n_atoms = static_cast<int32_t>(positions.size() / 3);
    append_header("POSDATA");
    append(cell, 9 * sizeof(double));
    append(inverse, 9 * sizeof(double));
    append(&n_atoms, sizeof(n_atoms));
    append(positions.data(), positions.size() * sizeof(double));
    append_header("GETFORCE");
    append_header("STATUS"); // its answer tells that the forces had the length that they said
    send_all();
    const double deadline = now() + timeout;
    const std::string said = receive_header(deadline, "sent its forces");
    if (said != "FORCEREADY")
        throw connection_error("the force client says '" + said + "' where FORCEREADY has its place");
    receive(&answer.energy, sizeof(double), deadline, "sent its forces");
    if (receive_count(INT32_MAX, deadline, "number of atoms") != n_atoms)
        throw connection_error("the force client answers for another number of atoms; start it with this structure");
    answer.forces.resize(positions.size());
    receive(answer.forces.data(), positions.size() * sizeof(double), deadline, "sent its forces");
    receive(answer.virial, sizeof(answer.virial), deadline, "sent its virial");
    answer.extras.resize(receive_count(LONGEST_EXTRAS, deadline, "length of the extras"));
    receive(&answer.extras[0], answer.extras.size(), deadline, "sent its extras");
    introduce(deadline);
}

void force_connection::leave()
{
    if (client >= 0) {
        try {
            outgoing.clear();
            append_header("EXIT");
            send_all();
        } catch (const connection_error &) { // it went first
        }
        close(client);
        client = -1;
    }
    if (listener >= 0)
        close(listener);
    listener = -1;
    forget_path();
}

void force_connection::append(const void *bytes, size_t length)
{
    const char *first = static_cast<const char *>(bytes);
    outgoing.insert(outgoing.end(), first, first + length);
}

void force_connection::append_header(const char *name)
{
    char padded[HEADER];
    std::memset(padded, ' ', HEADER);
    std::memcpy(padded, name, std::strlen(name));
    append(padded, HEADER);
}

void force_connection::send_all()
{
    const double deadline = now() + GREETING;
    size_t sent = 0;
    while (sent < outgoing.size()) {
        if (!ready(client, POLLOUT, deadline))
            throw connection_error("the force client takes nothing since " + seconds_of(GREETING) + "; is it stopped?");
        const ssize_t n = send(client, outgoing.data() + sent, outgoing.size() - sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            throw connection_error("the force client is gone (" + reason() + "); its own output says why");
        sent += n < 0 ? 0 : static_cast<size_t>(n);
    }
    outgoing.clear();
}

void force_connection::receive(void *bytes, size_t length, double deadline, const char *what)
{
    char *at = static_cast<char *>(bytes);
    while (length > 0) {
        const ssize_t n = recv(client, at, length, 0);
        if (n == 0)
            throw connection_error("the force client closed the connection before it " + std::string(what) +
                                   "; its own output says why");
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            throw connection_error("the connection to the force client broke (" + reason() + ")");
        if (n > 0) {
            at += n;
            length -= static_cast<size_t>(n);
        } else if (!ready(client, POLLIN, deadline)) {
            throw connection_error("the force client has not " + std::string(what) +
                                   " in time; if it needs longer, say timeout SECONDS (now " + seconds_of(timeout) +
                                   ")");
        }
    }
}

std::string force_connection::receive_header(double deadline, const char *what)
{
    char bytes[HEADER];
    receive(bytes, HEADER, deadline, what);
    size_t length = HEADER;
    while (length > 0 && bytes[length - 1] == ' ')
        length--;
    for (size_t i = 0; i < length; i++)
        if (bytes[i] < ' ' || bytes[i] > '~')
            bytes[i] = '?';
    return std::string(bytes, length);
}

int32_t force_connection::receive_count(int32_t most, double deadline, const char *what)
{
    int32_t count;
    receive(&count, sizeof(count), deadline, "sent all of its answer");
    if (count < 0 || count > most)
        throw connection_error("the " + std::string(what) + " that the force client sends is " + std::to_string(count) +
                               "; it does not speak the protocol");
    return count;
}

} // namespace comitia
