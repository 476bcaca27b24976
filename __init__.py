"""odegrad: a hand-written adjoint ODE engine on NumPy and CuPy."""
