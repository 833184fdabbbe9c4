# What of the CUDA backend runs on the host, compiled by the C++ compiler.
set(SECATEUR_CUDA_HOST_SOURCES
  ${CMAKE_CURRENT_LIST_DIR}/arena.cc
  ${CMAKE_CURRENT_LIST_DIR}/backend.cc
  ${CMAKE_CURRENT_LIST_DIR}/block_metrics.cc
  ${CMAKE_CURRENT_LIST_DIR}/block_runner.cc
  ${CMAKE_CURRENT_LIST_DIR}/cublas_lt.cc
  ${CMAKE_CURRENT_LIST_DIR}/device_rules.cc
  ${CMAKE_CURRENT_LIST_DIR}/device_runs.cc
  ${CMAKE_CURRENT_LIST_DIR}/device_shard.cc
  ${CMAKE_CURRENT_LIST_DIR}/hidden_states.cc
  ${CMAKE_CURRENT_LIST_DIR}/host_work.cc
  ${CMAKE_CURRENT_LIST_DIR}/matrix_library.cc
  ${CMAKE_CURRENT_LIST_DIR}/memory_plan.cc
  ${CMAKE_CURRENT_LIST_DIR}/row_allocation.cc
  ${CMAKE_CURRENT_LIST_DIR}/session.cc
)
