// SPDX-License-Identifier: GPL-2.0-or-later
// The server's side of the i-PI protocol with one force client. Hartree atomic units, as they travel; whatever arrives
// gives numbers or connection_error, and nothing waits longer than it was told to.
#ifndef COMITIA_FORCE_CONNECTION_H
#define COMITIA_FORCE_CONNECTION_H

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace comitia
{

// What went wrong with the client, and what to do.
struct connection_error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct force_answer {
    double energy;
    double virial[9]; // -dE/d(strain)
    std::vector<double> forces;
    std::string extras;
};

class force_connection
{
  public:
    // wait: s until the client is there; timeout: s until it has answered
    force_connection(double wait, double timeout);
    ~force_connection();
    force_connection(const force_connection &) = delete;
    force_connection &operator=(const force_connection &) = delete;

    void listen_unix(const std::string &path);
    void listen_inet(const std::string &host, const std::string &port);
    bool connected() const { return client >= 0; }

    // Wait for the client; replica is what INIT says of the atoms, and text goes with it.
    void accept_client(int32_t replica, const std::string &text);

    // Energy and forces of a structure.
    //   cell      IN  [3][3]       bohr, lattice vectors in columns; inverse likewise, 1/bohr
    //   positions IN  [n_atoms][3] bohr
    void compute(const double *cell, const double *inverse, const std::vector<double> &positions, force_answer &answer);

    // Say goodbye; never throws.
    void leave();

  private:
    double wait, timeout;
    int listener = -1, client = -1;
    int32_t replica = 0;
    std::string address, path, text;
    std::vector<char> outgoing;

    void listen_on(int family, const void *name, unsigned length);
    void send_all();
    void receive(void *bytes, size_t length, double deadline, const char *what);
    void introduce(double deadline);
    void append(const void *bytes, size_t length);
    void append_header(const char *name);
    std::string receive_header(double deadline, const char *what);
    int32_t receive_count(int32_t most, double deadline, const char *what);
    void forget_path();
};

} // namespace comitia

#endif
