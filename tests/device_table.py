"""What `pytest --device` leaves out, and why: files and tests that are about the host by their nature."""

from __future__ import annotations

# Files, or patterns of them.
HOST_MODULES: dict[str, str] = {
    "benchmarks/*": "programs of their own, which name their device",
    "engine/test_backend.py": "the two modules beside each other",
    "engine/test_cuda_*": "kernels, which are tried on the CPU and on a GPU by their own fixtures",
    "engine/test_cupy_protocols.py": "chooses its own arrays",
    "engine/test_fake_cupy.py": "the stand-in itself",
    "engine/test_fused_kernels.py": "kernels of the CPU",
    "engine/test_fusion.py": "kernels of the CPU",
    "engine/test_jit_*": "numba",
    "engine/test_joins.py": "buffers of the CPU",
    "engine/test_kernels_*": "kernels of the CPU",
    "engine/test_op_mutations.py": "breaks rules on purpose, which takes long, to see the tests of them fail",
    "engine/test_recompute.py": "buffers of the CPU",
    "engine/test_replay.py": "buffers of the CPU; those of a GPU are in test_cuda_replay.py",
    "engine/test_tiled.py": "caches of the CPU",
    "engine/test_upload.py": "chooses its own arrays",
    "solvers/test_against_scipy.py": "SciPy calls the dynamics with arrays of NumPy",
    "solvers/test_buffer_pool.py": "buffers of the CPU",
    "solvers/test_compiled.py": "numba",
    "solvers/test_controller.py": "numbers alone",
    "solvers/test_cuda_solves.py": "chooses its own arrays",
    "solvers/test_dirk_tableaus.py": "numbers alone",
    "solvers/test_kernel_precision.py": "kernels of the CPU",
    "solvers/test_solve_ivp.py": "states given as lists; test_solve_ivp_on_device.py has others",
    "solvers/test_tableau.py": "numbers alone",
    "train/test_audit*": "files",
    "train/test_bad_input.py": "files",
    "train/test_checkpoint.py": "files",
    "train/test_cli.py": "the command line",
    "train/test_config.py": "text",
    "train/test_data_*": "files",
    "train/test_end_to_end.py": "programs of their own",
    "train/test_feed.py": "chooses its own arrays",
    "train/test_joined.py": "small arrays side by side, which the CPU takes in one call",
    "train/test_metrics.py": "files",
    "train/test_pictures.py": "pictures",
    "train/test_plots.py": "pictures",
    "train/test_progress.py": "printing",
    "train/test_readme.py": "text",
    "train/test_resume.py": "programs that are ended",
    "train/test_run_folder.py": "files",
    "train/test_work_precision.py": "files",
    "test_device_suite.py": "chooses its own arrays",
    "test_imports.py": "the text of the package",
    "test_mutations.py": "breaks the package on purpose to see tests fail",
    "test_wheel.py": "the package as it is installed",
}

# Tests by their file; with [...] one of their cases alone.
HOST_TESTS: dict[str, dict[str, str]] = {
    "engine/test_check_bad_input.py": {
        "test_an_argument_edited_in_place": "the line is found with arrays that refuse writes, which CuPy has not",
    },
    "engine/test_check_differences.py": {
        "test_complex_step_falls_back_and_names_the_operation": "the line is that of the module placed between",
        "test_the_estimated_error_is_not_far_below_the_true_one": "numbers alone",
    },
    "engine/test_jitted.py": {
        "test_labels_are_checked_in_each_replay": "a device is not asked whether all labels are in their range",
    },
    "engine/test_ops_complex.py": {
        "test_gradient_of_a_number_that_meets_complex_values_is_real": "a number that meets arrays of a device has a gradient there",
    },
    "engine/test_ops_composites.py": {
        "test_wrong_argument_is_named": "a device is not asked whether all labels are in their range",
    },
    "engine/test_ops_primitives.py": {
        "test_only_declared_operations_return_views": "compares memory of the host",
        "test_writing_kernel_equals_the_plain_forward": "kernels of the CPU",
    },
    "engine/test_program.py": {
        "test_captured_var_of_an_outer_trace_is_a_hidden_input": "asks for the type of NumPy's arrays",
        "test_program_does_not_hold_on_to_captured_arrays": "an array of objects",
    },
    "engine/test_protocols.py": {
        "test_every_numpy_function_is_tested": "compares functions of NumPy",
        "test_expression_gives_numpys_values": "lists as operands, which CuPy refuses",
        "test_expression_has_the_derivative_of_differences": "lists as operands, which CuPy refuses",
        "test_refusal_names_the_callers_line": "the line is that of the module placed between",
    },
    "engine/test_random.py": {
        "test_columns_of_counters_are_independent_of_each_other": "names its array module",
        "test_known_answers": "names its array module",
    },
    "engine/test_transforms.py": {
        "test_aux_is_returned_as_plain_arrays": "asks for the type of NumPy's arrays",
        "test_gradient_of_a_python_number_is_one": "asks for the type of NumPy's arrays",
        "test_gradients_are_writable_and_share_no_memory": "CuPy's arrays are always writable",
        "test_value_is_writable_and_shares_no_memory_with_the_argument": "CuPy's arrays are always writable",
    },
    "layers/test_norms_and_dropout.py": {
        "test_dropout_leaves_zeros_and_scaled_values": "a set of elements",
    },
    "layers/test_ode_block.py": {
        "test_the_block_solves_the_ode_of_its_layer": "SciPy calls the dynamics with arrays of NumPy",
    },
    "solvers/test_bad_input.py": {
        "test_initial_states": "an array of records",
        "test_what_a_trace_cannot_see_is_refused_with_its_line": "the line is that of the module placed between",
    },
    "solvers/test_check_solution_gradients.py": {
        "test_dynamics_that_write_into_their_arguments": "the line is found with arrays that refuse writes, which CuPy has not",
    },
    "solvers/test_grid.py": {
        "test_fixed_steps_are_at_most_step_size_and_hit_every_output": "a set of elements",
    },
    "solvers/test_implicit.py": {
        "test_complex_states": "Krylov solves are the host's",
        "test_dynamics_that_become_nan_are_named[rosenbrock23]": "which of two errors comes first hangs on round-off",
        "test_jacobians_that_are_zero_or_diagonal": "Krylov solves are the host's",
        "test_krylov_solves_agree_with_dense_ones": "Krylov solves are the host's",
        "test_trees_parameters_and_output_times": "Krylov solves are the host's",
    },
    "solvers/test_independent.py": {
        "test_an_f_that_cannot_take_an_array_of_times_is_refused": "a list as an operand, which CuPy refuses",
        "test_control_of_rows_is_that_of_one": "numbers alone",
    },
    "solvers/test_interpolated.py": {
        "test_the_stored_path_reproduces_polynomials": "times that the package gives on the host",
    },
    "solvers/test_jacobian.py": {
        "test_product_agrees_with_complex_step": "buffers of the CPU",
    },
    "solvers/test_replayed_solves.py": {
        "test_a_step_allocates_less_than_one_state": "memory of the host",
        "test_a_thousand_solves_leave_no_memory_behind": "memory of the host",
        "test_failed_solves_leave_no_memory_behind": "memory of the host",
        "test_gradients_leave_no_memory_behind": "memory of the host",
    },
    "solvers/test_resolution.py": {
        "test_products_of_numpy_are_not_rounded": "products of the CPU",
    },
    "solvers/test_states.py": {
        "test_a_python_float_as_a_parameter": "a number that meets arrays of a device has a gradient there",
    },
    "solvers/test_study_accuracy.py": {
        "test_reversible_agrees_with_complex_steps_of_its_own_scheme": "complex numbers with matrices of the host",
        "test_states_and_parameters_agree_with_complex_steps": "complex numbers with matrices of the host",
    },
    "train/test_precision.py": {
        "test_the_gradient_of_the_digits_moves_as_by_a_change_of_the_images": "images and labels of the package are the host's",
    },
    "train/test_predictor.py": {
        "test_images_of_another_kind_are_refused": "images are given on the host",
    },
    "train/test_textbook_problems.py": {
        "test_a_reference_is_the_closed_form": "problems that hold arrays of the host",
    },
}
