//! Finds nvcc and compiles CUDA files to PTX and cubins.
