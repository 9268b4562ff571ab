/* The value that free stack is painted with, shared by the painter and the one who looks. */
#ifndef TINYGEN_STACK_H
#define TINYGEN_STACK_H

#define TINYGEN_STACK_PAINT UINT32_C(0x5AA5C33C)

#endif
