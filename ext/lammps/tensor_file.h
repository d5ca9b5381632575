// SPDX-License-Identifier: GPL-2.0-or-later
// A file of tensors, safetensors with one metadata key of JSON and a checksum: the twin of comitia.tensor_file.
#ifndef COMITIA_TENSOR_FILE_H
#define COMITIA_TENSOR_FILE_H

#include "json_text.h"

#include <cstdint>

namespace comitia
{

class tensor_file
{
  public:
    // Takes the bytes of the file; model_error where they are damaged.
    explicit tensor_file(std::string content);

    bool has(const std::string &name) const;

    // Tensors of finite numbers as doubles, or of integers, with so many dimensions; model_error where they are not.
    std::vector<double> reals(const std::string &name, size_t n_dimensions) const;
    std::vector<int64_t> integers(const std::string &name, size_t n_dimensions) const;
    double real(const std::string &name) const;
    int64_t integer(const std::string &name) const;
    const std::vector<size_t> &shape(const std::string &name) const;

    json_value metadata;

  private:
    struct tensor {
        std::string type;
        std::vector<size_t> shape;
        size_t begin, n;
    };

    std::string content;
    std::map<std::string, tensor> tensors;

    const tensor &find(const std::string &name, size_t n_dimensions, const char *types) const;
    void add(const std::string &name, const json_value &entry, size_t header_end);
};

} // namespace comitia

#endif
