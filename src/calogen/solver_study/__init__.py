"""How good and how dear the solvers of a state's flows are: figure 9 of CaloDREAM (arXiv:2405.09629) for any state."""

from calogen.solver_study.flows import Flow, flows_of
from calogen.solver_study.request import SOLVERS, Request
from calogen.solver_study.study import study

__all__ = ["SOLVERS", "Flow", "Request", "flows_of", "study"]
