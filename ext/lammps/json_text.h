// SPDX-License-Identifier: GPL-2.0-or-later
// JSON of the header of a model file, as a tree; any bytes give a tree or model_error.
#ifndef COMITIA_JSON_TEXT_H
#define COMITIA_JSON_TEXT_H

#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace comitia
{

// What is wrong with a model file, and what to do.
struct model_error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct json_value {
    enum kind_t { null, boolean, number, string, list, object } kind = null;
    double value = 0; // of a number; 0 or 1
    std::string text;
    std::vector<json_value> items;
    std::map<std::string, json_value> members;

    const json_value *find(const std::string &name) const;
};

json_value parse_json(const std::string &text);

} // namespace comitia

#endif
