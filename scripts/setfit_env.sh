#!/bin/sh
# Make an environment for SetFit beside ptune's, for `python -m benchmarks.few_labels`: its other packages are none of ptune's needs.
#
#   scripts/setfit_env.sh FOLDER      # about 1.5 GB
set -eu
folder=${1:?the folder of the new environment}
python=${PYTHON:-python3}
"$python" -m venv "$folder"
"$folder/bin/pip" install --quiet "${SETFIT:-setfit==1.2.0}" "${TORCH:-torch==2.13.0}" "${TRANSFORMERS:-transformers==5.23.0}"
"$folder/bin/python" -c "import setfit, sentence_transformers, torch, transformers
print('SetFit', setfit.__version__, 'sentence-transformers', sentence_transformers.__version__, 'torch', torch.__version__)
print('transformers', transformers.__version__)"
