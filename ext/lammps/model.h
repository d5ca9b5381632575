// SPDX-License-Identifier: GPL-2.0-or-later
// A model file as the core takes it: the twin of comitia.potential.model_file and comitia.potential.Potential.
#ifndef COMITIA_MODEL_H
#define COMITIA_MODEL_H

#include "tensor_file.h"

#include <cstdlib>
#include <memory>

extern "C" {
#include "dispatch.h"
}

namespace comitia
{

class model
{
  public:
    // From the bytes of a model file; model_error where it cannot be used.
    explicit model(std::string content);

    const descriptor &core() const { return kernel; }
    int n_species() const { return kernel.n_species; }
    int n_members() const { return members; }
    size_t width() const { return mean.size(); }

    std::vector<int> species;               // atomic numbers, increasing
    std::vector<double> mean;               // [n_species][n_features] weights of the mean of the members, eV
    std::vector<double> deviations;         // [n_members][n_species][n_features] calibrated weights less their mean
    std::vector<double> atomic_deviations;  // [n_species][n_members][n_features] the same
    std::vector<double> reference_energies; // [n_species] eV
    bool is_correction;                     // to a baseline, which the file does not hold

  private:
    struct release {
        void operator()(void *memory) const { std::free(memory); }
    };

    int members;
    descriptor kernel{};
    std::vector<std::unique_ptr<void, release>> kept;

    void describe(const tensor_file &file);
    void weigh(const tensor_file &file);

    // Copies that live as long as the model, on a cache line, with a line to spare.
    const double *reals(const std::vector<double> &numbers);
    const int32_t *integers(const std::vector<int32_t> &numbers);
    void *keep(const void *numbers, size_t bytes);
};

} // namespace comitia

#endif
