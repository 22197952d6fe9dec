// A fake libnvidia-encode.so.1: PyNvVideoCodec asks it for its version when it is imported, even to decode.
#include "fake.h"

EXPORT int NvEncodeAPIGetMaxSupportedVersion(uint32_t *version) {
    *version = 13 << 4;
    return SUCCESS;
}
