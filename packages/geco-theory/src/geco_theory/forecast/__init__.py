"""What a good model will pay on unseen data: which component, then a local linear code [D10]."""

from geco_theory.forecast.rate import forecast_rate

__all__ = ["forecast_rate"]
