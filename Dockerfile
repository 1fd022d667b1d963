# docker build -t amn .                                                  for the CPU
# docker build -t amn --build-arg INDEX=https://pypi.org/simple .        for CUDA: PyPI's torch has it
# docker run --rm -v "$PWD/out:/out" amn                                 quickstart, into ./out
# docker run --rm --gpus all --ipc=host -v DATA:/data -v "$PWD/out:/out" amn \
#     python /amn/run_sample.py --data_root /data --work_dir /out/my_run --stages train_cam..eval_sem_seg
FROM python:3.12-slim
ARG INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /amn
# What is installed depends on these files alone, so that a change of the code installs nothing anew.
COPY requirements*.txt ./
COPY script/make_env.sh script/help.sh script/check_env.py script/constraints.txt script/
# torch and torchvision by their pins from INDEX; all else from PyPI.
RUN python -m venv .venv \
    && grep -E '^torch(vision)?==' script/constraints.txt \
        | xargs .venv/bin/pip install --no-cache-dir --index-url "$INDEX" \
            --extra-index-url https://pypi.org/simple \
    && PIP_NO_CACHE_DIR=1 PYTHON=python3 bash script/make_env.sh
COPY . .
ENV PATH=/amn/.venv/bin:$PATH PYTHONPATH=/amn
WORKDIR /out
CMD ["bash", "/amn/script/quickstart.sh"]
