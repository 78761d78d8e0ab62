"""MVNO in a box: a deployment kit that launches a mobile brand on Kubernetes from one file."""

__version__ = "0.1.0"
