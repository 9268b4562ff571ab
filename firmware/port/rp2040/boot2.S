/* RP2040: the second stage of booting, which the chip's ROM loads from the first 256 bytes of flash.
 *
 * It sets the flash interface up for execution in place and starts the program behind it.  The flash
 * is read with command 3Bh (dual output), which serial flash of every maker has and which needs no
 * mode set in the flash itself, at half the system clock; the ROM leaves the system clock at 6 MHz or
 * so, and the port later sets 133 MHz, hence 66 MHz here.  "DS" is the RP2040 Datasheet.
 *
 * The ROM runs it only with the right checksum in the last four of the 256 bytes (DS 2.8.1.3.1):
 * CRC-32 with polynomial 04C11DB7h, initial value FFFFFFFFh, nothing reflected or inverted, over the
 * 252 bytes before.  The assembler cannot compute that, so CHECKSUM below is written down here; a
 * test assembles this file and compares.
 */
#define CHECKSUM 0xc2450be2

/* DS 4.10.13, XIP_SSI */
#define SSI_CTRLR0 0x00
#define SSI_SSIENR 0x08
#define SSI_BAUDR 0x14
#define SSI_RX_SAMPLE_DLY 0xf0
#define SSI_SPI_CTRLR0 0xf4

  .syntax unified
  .cpu cortex-m0plus
  .thumb

  .section .boot2, "ax", %progbits
  .align 8
tinygen_boot2:
  ldr r3, ssi
  movs r0, #0
  str r0, [r3, #SSI_SSIENR] /* settings change only while it is off */
  movs r0, #2
  str r0, [r3, #SSI_BAUDR] /* system clock / 2 */
  movs r0, #1
  movs r1, #SSI_RX_SAMPLE_DLY
  str r0, [r3, r1] /* half a bit later: the data takes a while to come back */
  ldr r0, ctrlr0
  str r0, [r3, #SSI_CTRLR0]
  ldr r0, spi_ctrlr0
  movs r1, #SSI_SPI_CTRLR0
  str r0, [r3, r1]
  movs r0, #0
  str r0, [r3, #4] /* CTRLR1: one data frame a transfer */
  movs r0, #1
  str r0, [r3, #SSI_SSIENR]
  ldr r0, vectors
  ldr r1, vtor
  str r0, [r1]
  ldmia r0!, {r1, r2}
  msr msp, r1
  bx r2

  .align 2
ssi:
  .word 0x18000000
/* SPI_FRF = 1 (dual), DFS_32 = 31 (32 bits), TMOD = 3 (read: command, address, then data) */
ctrlr0:
  .word (1 << 21) | (31 << 16) | (3 << 8)
/* XIP_CMD = 3Bh, WAIT_CYCLES = 8, INST_L = 2 (8 bits), ADDR_L = 6 (24 bits), TRANS_TYPE = 0
 * (command and address on one line) */
spi_ctrlr0:
  .word (0x3b << 24) | (8 << 11) | (2 << 8) | (6 << 2)
vectors:
  .word tinygen_vectors
vtor:
  .word 0xe000ed08

  .org 252
  .word CHECKSUM
