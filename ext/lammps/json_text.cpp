// SPDX-License-Identifier: GPL-2.0-or-later
#include "json_text.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

namespace comitia
{
namespace
{

constexpr int DEEPEST = 64; // lists and objects inside each other

class parser
{
  public:
    explicit parser(const std::string &text) : at(text.c_str()), end(at + text.size()) {}

    json_value whole()
    {
        json_value found = value(0);
        space();
        if (at != end)
            fail();
        return found;
    }

  private:
    const char *at, *end; // *end is 0

    [[noreturn]] static void fail() { throw model_error("its header is not JSON"); }

    void space()
    {
        while (at < end && std::strchr(" \t\r\n", *at) != nullptr)
            at++;
    }

    bool take(char c)
    {
        space();
        if (at == end || *at != c)
            return false;
        at++;
        return true;
    }

    void expect(char c)
    {
        if (!take(c))
            fail();
    }

    bool word(const char *name)
    {
        const size_t n = std::strlen(name);
        if (static_cast<size_t>(end - at) < n || std::memcmp(at, name, n) != 0)
            return false;
        at += n;
        return true;
    }

    json_value value(int depth)
    {
        json_value found;
        if (depth > DEEPEST)
            fail();
        space();
        if (at < end && *at == '"') {
            found.kind = json_value::string;
            found.text = string();
        } else if (take('{')) {
            found.kind = json_value::object;
            for (bool first = true; !take('}'); first = false) {
                if (!first)
                    expect(',');
                space();
                const std::string name = string();
                expect(':');
                found.members[name] = value(depth + 1);
            }
        } else if (take('[')) {
            found.kind = json_value::list;
            for (bool first = true; !take(']'); first = false) {
                if (!first)
                    expect(',');
                found.items.push_back(value(depth + 1));
            }
        } else if (word("true") || word("false")) {
            found.kind = json_value::boolean;
            found.value = at[-2] == 'u';
        } else if (!word("null")) {
            char *behind;
            found.kind = json_value::number;
            found.value = std::strtod(at, &behind);
            if (behind == at || behind > end)
                fail();
            at = behind;
        }
        return found;
    }

    unsigned hexadecimal()
    {
        static const char digits[] = "0123456789abcdef";
        unsigned code = 0;
        for (int digit = 0; digit < 4; digit++, at++) {
            const char *place = at < end && *at != 0 ? std::strchr(digits, *at | 0x20) : nullptr;
            if (place == nullptr)
                fail();
            code = 16 * code + static_cast<unsigned>(place - digits);
        }
        return code;
    }

    std::string string()
    {
        std::string found;
        if (at == end || *at++ != '"')
            fail();
        while (true) {
            if (at == end)
                fail();
            const char c = *at++;
            if (c == '"')
                return found;
            if (c != '\\') {
                found += c;
                continue;
            }
            const char escaped = at < end ? *at++ : 0;
            static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
            const char *place = escaped == 0 ? nullptr : std::strchr(from, escaped);
            if (place != nullptr)
                found += to[place - from];
            else if (escaped == 'u')
                append(found, hexadecimal());
            else
                fail();
        }
    }

    // UTF-8; the halves of a pair of surrogates one by one, as nothing here reads such letters.
    static void append(std::string &text, unsigned code)
    {
        if (code < 0x80) {
            text += static_cast<char>(code);
            return;
        }
        if (code < 0x800) {
            text += static_cast<char>(0xc0 | (code >> 6));
        } else {
            text += static_cast<char>(0xe0 | (code >> 12));
            text += static_cast<char>(0x80 | ((code >> 6) & 0x3f));
        }
        text += static_cast<char>(0x80 | (code & 0x3f));
    }
};

} // namespace

const json_value *json_value::find(const std::string &name) const
{
    const auto found = members.find(name);
    return found == members.end() ? nullptr : &found->second;
}

json_value parse_json(const std::string &text)
{
    return parser(text).whole();
}

} // namespace comitia
