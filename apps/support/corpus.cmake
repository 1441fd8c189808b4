# The default text to train on: the headers of the C++ standard library that this compiler uses, one after another. Sets
# GRAINGRAD_CORPUS to the file, or stops where there are none.
set(GRAINGRAD_CORPUS ${CMAKE_BINARY_DIR}/corpus.txt)
set(headers_folder "")
foreach(folder IN LISTS CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES)
  if(EXISTS ${folder}/vector)
    set(headers_folder ${folder})
    break()
  endif()
endforeach()
if(NOT headers_folder)
  message(FATAL_ERROR "no folder of the compiler's own includes has the header `vector`: "
                      "${CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES}; install the C++ standard library's headers")
endif()
file(GLOB corpus_headers LIST_DIRECTORIES FALSE ${headers_folder}/* ${headers_folder}/bits/*.h)
list(SORT corpus_headers)
# Byte for byte, and replaced only where it differs.
execute_process(COMMAND ${CMAKE_COMMAND} -E cat ${corpus_headers} OUTPUT_FILE ${GRAINGRAD_CORPUS}.new
                RESULT_VARIABLE corpus_failed)
if(corpus_failed)
  message(FATAL_ERROR "could not gather ${headers_folder} into ${GRAINGRAD_CORPUS}: ${corpus_failed}")
endif()
execute_process(COMMAND ${CMAKE_COMMAND} -E copy_if_different ${GRAINGRAD_CORPUS}.new ${GRAINGRAD_CORPUS})
file(REMOVE ${GRAINGRAD_CORPUS}.new)
file(SIZE ${GRAINGRAD_CORPUS} corpus_bytes)
message(STATUS "Default corpus: ${headers_folder}, ${corpus_bytes} bytes")
