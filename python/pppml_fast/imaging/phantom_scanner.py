"""What a hospital's scanner does to a patient: slices, kernel, dose, calibration, field and window."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pppml_fast.imaging.phantom_field import Field

PIXEL_SUPERSAMPLING = 2


def average_blocks(volume: npt.NDArray[np.generic], slices: int, pixels: int) -> Field:
    """Means over blocks of slices x pixels x pixels: thick slices and the detector's aperture."""
    depth, height, width = (length // step for length, step in zip(volume.shape, (slices, pixels, pixels), strict=True))
    cut = volume[: depth * slices].astype(np.float32, copy=False)
    return cut.reshape(depth, slices, height, pixels, width, pixels).mean(axis=(1, 3, 5), dtype=np.float32)


def kernel_response(size: int, pixel_mm: float, sharpness: float) -> tuple[Field, Field]:
    """Transfer function of a reconstruction kernel and the amplitude of its noise, both (H, W // 2 + 1).

    `sharpness` runs from -1 (soft tissue) to 1 (lung, with edge enhancement). Filtered backprojection
    colours the noise: amplitude ~ square root of the ramp times the kernel.
    """
    rows = np.fft.fftfreq(size, pixel_mm)[:, None]
    columns = np.fft.rfftfreq(size, pixel_mm)[None, :]
    frequency = np.hypot(rows, columns)
    cut = 0.13 * 2.0**sharpness
    response = np.exp(-((frequency / cut) ** 2))
    response *= 1 + max(sharpness, 0.0) * 1.6 * (frequency / cut) ** 2
    noise = np.sqrt(frequency) * response
    return response.astype(np.float32), noise.astype(np.float32)


def reconstruct(hounsfield: Field, pixel_mm: float, sharpness: float) -> Field:
    """Slices (D, H, W) as the kernel shows them."""
    size = hounsfield.shape[1]
    response, _ = kernel_response(size, pixel_mm, sharpness)
    spectrum = np.fft.rfft2(hounsfield + 1000)
    return np.asarray(np.fft.irfft2(spectrum * response, s=hounsfield.shape[1:]) - 1000, dtype=np.float32)


def dose_noise(
    random: np.random.Generator, shape: tuple[int, int, int], pixel_mm: float, sharpness: float, sigma: float
) -> Field:
    """Noise of standard deviation `sigma` HU in the middle, the kernel's correlation, less at the rim."""
    _, amplitude = kernel_response(shape[1], pixel_mm, sharpness)
    white = random.standard_normal(shape, dtype=np.float32)
    noise = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=shape[1:])
    noise /= max(float(noise.std()), 1e-6)
    line = (np.arange(shape[1]) + 0.5 - shape[1] / 2) * pixel_mm
    radius = np.hypot(line[:, None] / 150, line[None, :] / 190)
    profile = 0.45 + 0.75 * np.exp(-(radius**2))
    return np.asarray(sigma * profile * noise, dtype=np.float32)


def blacken_corners(hounsfield: Field, low: float) -> None:
    """Sets what lies outside the circle of reconstruction to the window's black, as many scanners do."""
    size = hounsfield.shape[1]
    line = np.arange(size) + 0.5 - size / 2
    outside = np.hypot(line[:, None], line[None, :]) > size / 2
    hounsfield[:, outside] = low


def to_grey(hounsfield: Field, window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Hounsfield units to 8 bits of grey through a window."""
    low, high = window
    grey = np.clip((hounsfield - low) / (high - low), 0, 1)
    return np.round(grey * 255).astype(np.uint8)
