from depthnet.inference.model import load as load
from depthnet.training.service import fit as fit

__version__: str
