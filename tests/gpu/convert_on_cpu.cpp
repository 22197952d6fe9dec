// convert.cu for the CPU: the same source, its threads one after another.
#include "cuda_shim.h"

#include "convert.cu"

// float to half, to nearest even: what the GPU's cvt.rn.f16.f32 does.
static Half half_of(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    unsigned sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
    Half half;
    if (rest >= 0x47800000u) {  // 65536 and more
        half.bits = (unsigned short)(sign | 0x7c00u);
    } else if (rest >= 0x38800000u) {  // normal
        unsigned rounded = rest + 0xfffu + (rest >> 13 & 1u);
        half.bits = (unsigned short)(sign | ((rounded - 0x38000000u) >> 13));
    } else {  // subnormal: adding 0.5 leaves the halves' last place in the last place of the sum
        float magnitude;
        memcpy(&magnitude, &rest, sizeof rest);
        magnitude += 0.5f;
        memcpy(&rest, &magnitude, sizeof rest);
        half.bits = (unsigned short)(sign | (rest - 0x3f000000u));
    }
    return half;
}

extern "C" int conversion_size() { return (int)sizeof(Conversion); }

extern "C" void run(int kernel, const Conversion *to, unsigned grid_x, unsigned grid_y, unsigned block_x, unsigned block_y) {
    void (*const kernels[])(Conversion) = {convert_8_f32, convert_8_f16, convert_16_f32, convert_16_f16};
    blockDim = {block_x, block_y};
    for (blockIdx.y = 0; blockIdx.y < grid_y; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < grid_x; ++blockIdx.x)
            for (threadIdx.y = 0; threadIdx.y < block_y; ++threadIdx.y)
                for (threadIdx.x = 0; threadIdx.x < block_x; ++threadIdx.x) kernels[kernel](*to);
}
