// SPDX-License-Identifier: GPL-2.0-or-later
#include "tensor_file.h"

#include <cmath>
#include <cstring>

namespace comitia
{
namespace
{

constexpr double LARGEST = 9007199254740992.0; // of the integers that a double holds, 2^53

// CRC-32 of zlib and PNG (ISO 3309).
uint32_t checksum(const unsigned char *bytes, size_t n)
{
    uint32_t table[256], crc = 0xffffffffu;
    for (uint32_t byte = 0; byte < 256; byte++) {
        table[byte] = byte;
        for (int bit = 0; bit < 8; bit++)
            table[byte] = (table[byte] >> 1) ^ (table[byte] & 1 ? 0xedb88320u : 0);
    }
    for (size_t i = 0; i < n; i++)
        crc = (crc >> 8) ^ table[(crc ^ bytes[i]) & 0xff];
    return ~crc;
}

uint64_t little_endian(const unsigned char *bytes, int n)
{
    uint64_t number = 0;
    for (int i = n - 1; i >= 0; i--)
        number = number << 8 | bytes[i];
    return number;
}

size_t size_of(const std::string &type)
{
    return type == "F64" || type == "I64" ? 8 : type == "F32" || type == "I32" ? 4 : type == "U8" ? 1 : 0;
}

size_t count(const json_value &number)
{
    if (number.kind != json_value::number || !(number.value >= 0 && number.value <= LARGEST) ||
        number.value != std::floor(number.value))
        throw model_error("its header is not that of tensors");
    return static_cast<size_t>(number.value);
}

} // namespace

tensor_file::tensor_file(std::string bytes) : content(std::move(bytes))
{
    const auto *first = reinterpret_cast<const unsigned char *>(content.data());
    const size_t size = content.size();
    const uint64_t header = size < 16 ? 0 : little_endian(first, 8);
    if (size < 16 || content[8] != '{' || header > size - 12)
        throw model_error("it is no comitia model, or cut short");
    if (checksum(first, size - 4) != little_endian(first + size - 4, 4))
        throw model_error("it is damaged, as the checksum does not match");
    const json_value entries = parse_json(content.substr(8, header));
    for (const auto &[name, entry] : entries.members)
        if (name != "__metadata__")
            add(name, entry, 8 + header);
    const json_value *text = entries.find("__metadata__");
    text = text == nullptr ? nullptr : text->find("comitia");
    if (text == nullptr)
        throw model_error("it is no comitia model");
    metadata = parse_json(text->text);
}

void tensor_file::add(const std::string &name, const json_value &entry, size_t header_end)
{
    const json_value *type = entry.find("dtype"), *shape = entry.find("shape"), *range = entry.find("data_offsets");
    if (type == nullptr || shape == nullptr || range == nullptr || range->items.size() != 2)
        throw model_error("its header is not that of tensors");
    tensor found{type->text, {}, header_end + count(range->items[0]), 1};
    const size_t end = header_end + count(range->items[1]), left = content.size();
    for (const json_value &length : shape->items) {
        found.shape.push_back(count(length));
        if (found.shape.back() > 0 && found.n > left / found.shape.back())
            throw model_error("a tensor is larger than the file");
        found.n *= found.shape.back();
    }
    if (end > content.size() || found.begin > end ||
        (size_of(found.type) > 0 && found.n * size_of(found.type) != end - found.begin))
        throw model_error("its tensors do not fit into the file");
    tensors[name] = found;
}

bool tensor_file::has(const std::string &name) const
{
    return tensors.count(name) > 0;
}

const tensor_file::tensor &tensor_file::find(const std::string &name, size_t n_dimensions, const char *types) const
{
    const auto found = tensors.find(name);
    if (found == tensors.end() || found->second.shape.size() != n_dimensions || size_of(found->second.type) < 4 ||
        std::strchr(types, found->second.type[0]) == nullptr)
        throw model_error("tensor " + name + " is missing or has the wrong type or shape");
    return found->second;
}

const std::vector<size_t> &tensor_file::shape(const std::string &name) const
{
    return tensors.at(name).shape;
}

std::vector<double> tensor_file::reals(const std::string &name, size_t n_dimensions) const
{
    const tensor &of = find(name, n_dimensions, "F");
    std::vector<double> numbers(of.n);
    for (size_t i = 0; i < of.n; i++) {
        if (of.type == "F64") {
            std::memcpy(&numbers[i], &content[of.begin + 8 * i], 8);
        } else {
            float single;
            std::memcpy(&single, &content[of.begin + 4 * i], 4);
            numbers[i] = single;
        }
        if (!std::isfinite(numbers[i]))
            throw model_error("tensor " + name + " holds a number that is not finite");
    }
    return numbers;
}

std::vector<int64_t> tensor_file::integers(const std::string &name, size_t n_dimensions) const
{
    const tensor &of = find(name, n_dimensions, "I");
    std::vector<int64_t> numbers(of.n);
    for (size_t i = 0; i < of.n; i++) {
        int32_t narrow;
        std::memcpy(&narrow, &content[of.begin + size_of(of.type) * i], 4);
        numbers[i] = narrow;
        if (of.type == "I64")
            std::memcpy(&numbers[i], &content[of.begin + 8 * i], 8);
    }
    return numbers;
}

double tensor_file::real(const std::string &name) const
{
    return reals(name, 0)[0];
}

int64_t tensor_file::integer(const std::string &name) const
{
    return integers(name, 0)[0];
}

} // namespace comitia
