"""Models of which all but the last layer is fixed: what a closed form is fitted on."""

from fedkd.models.fixed.contrast_filters import bases

__all__ = ["bases"]
