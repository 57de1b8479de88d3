"""The matrix LSTM of xLSTM, and the block that Vision-LSTM makes of it: what the survey names after Mamba."""
