# Compresses a file for the addon: gzip, the same bytes for the same contents.
#   cmake -DFROM=build/ptx/fill.ptx -DTO=build/ptx/fill.ptx.gz -P cuda/pack.cmake
file(ARCHIVE_CREATE OUTPUT ${TO} PATHS ${FROM} FORMAT raw COMPRESSION GZip COMPRESSION_LEVEL 9 MTIME 0)
