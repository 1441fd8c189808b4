// The source that a library needs; its headers are in CMakeLists.txt.
