/* KERNEL marks a function of which one copy is built per instruction set and chosen when the library is
 * loaded. Helpers that it calls are `static inline` in the same file, so that they vectorise in each copy. */
#ifndef COMITIA_KERNEL_H
#define COMITIA_KERNEL_H

#if defined(COMITIA_DISPATCH) && defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define KERNEL __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define KERNEL
#endif

#endif
